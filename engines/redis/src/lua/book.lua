-- Entries: a hash each (v version, w written, d data), an index for each space, sorted by name,
-- and the times at which entries may go.
local FIELDS = 7 -- of a change: entry, version expected, kind, data, lasts in ms, ring, bells
local SLACK = 60000 -- ms that an entry outlives its meaning
local SWEEP = 4 -- names of entries that went, taken off the index with each write

local function index(entry)
  return P .. ':index:' .. string.sub(entry, 1, 1)
end

local function see(reply, entry)
  local got = call('HMGET', P .. ':' .. entry, 'v', 'w', 'd')
  for i = 1, 3 do
    reply[#reply + 1] = got[i]
  end
end

-- How all entries of the changes are, if one of them is not as expected.
local function changed(first, count)
  local is = false
  for i = first, first + (count - 1) * FIELDS, FIELDS do
    if (call('HGET', P .. ':' .. ARGV[i], 'v') or '0') ~= ARGV[i + 1] then
      is = true
    end
  end
  if not is then
    return nil
  end
  local reply = { 'changed', text(now) }
  for i = first, first + (count - 1) * FIELDS, FIELDS do
    see(reply, ARGV[i])
  end
  return reply
end

local function sweep()
  local ends = P .. ':ends'
  local over = call('ZRANGEBYSCORE', ends, '-inf', math.floor(now / 1000), 'LIMIT', 0, SWEEP)
  for _, entry in ipairs(over) do
    if call('EXISTS', P .. ':' .. entry) == 0 then
      call('ZREM', index(entry), string.sub(entry, 3))
    end
    call('ZREM', ends, entry)
  end
end

local function change(i, version)
  local entry, kind, lasts = ARGV[i], ARGV[i + 2], ARGV[i + 4]
  local at, ends = P .. ':' .. entry, P .. ':ends'
  if kind == 'v' then
    call('HSET', at, 'v', version, 'w', text(now), 'd', ARGV[i + 3])
    call('ZADD', index(entry), 0, string.sub(entry, 3))
    if lasts == '' then
      call('PERSIST', at)
      call('ZREM', ends, entry)
    else
      local over = math.floor(now / 1000) + tonumber(lasts) + SLACK
      call('PEXPIREAT', at, text(over))
      call('ZADD', ends, text(over), entry)
    end
  elseif kind == 'n' then
    call('DEL', at)
    call('ZREM', index(entry), string.sub(entry, 3))
    call('ZREM', ends, entry)
  end
  if ARGV[i + 5] == '1' then
    call('PUBLISH', P .. ':b:' .. entry, version)
  end
  for bell in string.gmatch(ARGV[i + 6], '%S+') do
    call('PUBLISH', P .. ':b:' .. bell, version)
  end
end

-- Writes changes that were found to be as expected; gives their version.
local function write(first, count)
  local version = text(versions(1))
  for i = first, first + (count - 1) * FIELDS, FIELDS do
    change(i, version)
  end
  sweep()
  return version
end
