-- Begins every script. KEYS[1] is the prefix of all keys; its hash tag keeps them in one slot.
local P = KEYS[1]
local call = redis.call
local time = call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

-- A number as text with all its digits: Lua's own conversion gives fourteen.
local function text(number)
  return string.format('%.0f', number)
end

-- A run of versions above all that were given before: a hybrid logical clock (Kulkarni et al.,
-- "Logical Physical Clocks", 2014). The last one is kept, and where that is lost, by FLUSHALL or a
-- failover to an older replica, the server's clock stands in for it. Below 2^53 until 2255.
local function versions(count)
  local last = tonumber(call('GET', P .. ':version') or '0')
  local first = math.max(last + 1, now)
  call('SET', P .. ':version', text(first + count - 1))
  return first
end
