# SPDX-License-Identifier: GPL-3.0-or-later
import argparse
import sys

from . import cli

parser = argparse.ArgumentParser(prog="solver-worker traffic", description=cli.DESCRIPTION)
cli.add_arguments(parser)
sys.exit(cli.run(parser.parse_args()))
