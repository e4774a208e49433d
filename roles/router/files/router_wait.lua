-- SPDX-License-Identifier: GPL-3.0-or-later
-- After a reload the process before hands its keys over while this one serves already; 150000 took half a second.
-- Until it has them, a known key would be taken for a new one.
local SETTLED_S = 2

local function seconds()
  local now = core.now()
  return now.sec + now.usec / 1000000
end

local started = seconds()

core.register_action("wait_for_the_keys", { "http-req" }, function(_txn)
  local left = started + SETTLED_S - seconds()
  if left > 0 then
    core.msleep(math.ceil(left * 1000))
  end
end)
