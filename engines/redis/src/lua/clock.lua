-- Begins every script. KEYS[1] is the prefix of all keys; its hash tag keeps them in one slot.
local P = KEYS[1]
local call = redis.call
local time = call('TIME')
local clock = string.format('%010d%06d', time[1], time[2])
local now = clock + 0

-- A number as text with all its digits: Lua's own conversion gives fourteen.
local function text(number)
  return string.format('%.0f', number)
end

-- A run of versions above all that were given before: a hybrid logical clock (Kulkarni et al.,
-- "Logical Physical Clocks", 2014). The last one is kept, and where that is lost, by FLUSHALL or a
-- failover to an older replica, the server's clock stands in for it. Below 2^53 until 2255.
local function versions(count)
  local last = call('GETSET', P .. ':version', count == 1 and clock or text(now + count - 1))
  last = last and last + 0 or 0
  if last < now then
    return now
  end
  call('SET', P .. ':version', text(last + count))
  return last + 1
end
