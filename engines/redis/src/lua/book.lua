-- Entries: a hash each (v version, w written, d data) and an index for each space, sorted by name.
local FIELDS = 7 -- of a change: entry, version expected, kind, data, lasts in ms, ring, bells
local SLACK = 60000 -- ms that an entry outlives its meaning
local SWEEP_EVERY, SWEEP = 32, 64 -- one write in so many looks at so many names of the index

local function index(entry)
  return P .. ':index:' .. string.sub(entry, 1, 1)
end

local function see(reply, entry)
  local got = call('HMGET', P .. ':' .. entry, 'v', 'w', 'd')
  for i = 1, 3 do
    reply[#reply + 1] = got[i]
  end
end

-- How all entries of the changes are, if one is not as expected or it is too late; or else which
-- are there.
local function changed(first, count, is_late)
  local is, there = is_late, {}
  for i = first, first + (count - 1) * FIELDS, FIELDS do
    local version = call('HGET', P .. ':' .. ARGV[i], 'v')
    there[i] = version
    if (version or '0') ~= ARGV[i + 1] then
      is = true
    end
  end
  if not is then
    return nil, there
  end
  local reply = { 'changed', text(now) }
  for i = first, first + (count - 1) * FIELDS, FIELDS do
    see(reply, ARGV[i])
  end
  return reply
end

-- Takes names off an index whose entries went by themselves: some at a time, going round. Each
-- write looks at two names on average, and makes one at most.
local function sweep(entry)
  local at, place = index(entry), P .. ':swept:' .. string.sub(entry, 1, 1)
  local from = call('GET', place)
  local names = call('ZRANGEBYLEX', at, from and '(' .. from or '-', '+', 'LIMIT', 0, SWEEP)
  for _, name in ipairs(names) do
    if call('EXISTS', P .. ':' .. string.sub(entry, 1, 2) .. name) == 0 then
      call('ZREM', at, name)
    end
  end
  if #names == SWEEP then
    call('SET', place, names[SWEEP])
  else
    call('DEL', place)
  end
end

local function change(i, version, is_there)
  local entry, kind, lasts = ARGV[i], ARGV[i + 2], ARGV[i + 4]
  local at = P .. ':' .. entry
  if kind == 'v' then
    call('HSET', at, 'v', version, 'w', text(now), 'd', ARGV[i + 3])
    if not is_there then
      call('ZADD', index(entry), 0, string.sub(entry, 3))
    end
    if lasts ~= '' then
      call('PEXPIREAT', at, text(math.floor(now / 1000) + tonumber(lasts) + SLACK))
    elseif is_there then
      call('PERSIST', at)
    end
  elseif kind == 'n' then
    call('DEL', at)
    call('ZREM', index(entry), string.sub(entry, 3))
  end
  if ARGV[i + 5] == '1' then
    call('PUBLISH', P .. ':b:' .. entry, version)
  end
  if ARGV[i + 6] ~= '' then
    for bell in string.gmatch(ARGV[i + 6], '%S+') do
      call('PUBLISH', P .. ':b:' .. bell, version)
    end
  end
end

-- Writes changes that were found to be as expected; gives their version.
local function write(first, count, there)
  local version = versions(1)
  local written = text(version)
  for i = first, first + (count - 1) * FIELDS, FIELDS do
    change(i, written, there[i])
  end
  if version % SWEEP_EVERY == 0 then
    sweep(ARGV[first])
  end
  return written
end
