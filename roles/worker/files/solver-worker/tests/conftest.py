# SPDX-License-Identifier: GPL-3.0-or-later
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from harness import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    # Not under tmp_path: a socket's path must be short.
    home = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    made = World(home)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        made.http = http
        try:
            yield made
        finally:
            made.end()
            shutil.rmtree(home)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder whose path a socket may have."""
    folder = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
