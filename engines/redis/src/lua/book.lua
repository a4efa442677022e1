-- Entries: a string each, of the version in sixteen digits, the time of its write in as many, and
-- the data. Registers have an index, sorted by name.
local FIELDS = 5 -- of a change: key, version expected, what becomes of it, lasts in ms, data
local SWEEP_EVERY, SWEEP = 32, 64 -- one write in so many looks at so many names of the index

-- How all entries of the changes are, behind the time, if one is not as expected or it is too late.
local function changed(first, count, is_late)
  local is = is_late
  local reply = { clock }
  for i = first, first + (count - 1) * FIELDS, FIELDS do
    local entry = call('GET', ARGV[i])
    if (entry and string.sub(entry, 1, 16) or '') ~= ARGV[i + 1] then
      is = true
    end
    reply[#reply + 1] = entry
  end
  return is and reply
end

-- Keeps the index of registers. Names whose registers went by themselves are taken off some at a
-- time, going round: each write looks at two on average, and makes one at most.
local function index(key, to, is_new, version)
  local at, place = P .. ':index:r', P .. ':swept:r'
  local name = string.sub(key, #P + 4)
  if to == 'nothing' then
    call('ZREM', at, name)
  elseif is_new then
    call('ZADD', at, 0, name)
  end
  if version % SWEEP_EVERY > 0 then
    return
  end
  local from = call('GET', place)
  local names = call('ZRANGEBYLEX', at, from and '(' .. from or '-', '+', 'LIMIT', 0, SWEEP)
  for _, old in ipairs(names) do
    if call('EXISTS', P .. ':r:' .. old) == 0 then
      call('ZREM', at, old)
    end
  end
  if #names == SWEEP then
    call('SET', place, names[SWEEP])
  else
    call('DEL', place)
  end
end

-- Writes changes that were found to be as expected; gives their version and the time, as an entry
-- begins.
local function write(first, count)
  local version = versions(1)
  local head = (version == now and clock or string.format('%016.0f', version)) .. clock
  for i = first, first + (count - 1) * FIELDS, FIELDS do
    local key, to, lasts = ARGV[i], ARGV[i + 2], ARGV[i + 3]
    if to == 'nothing' then
      call('DEL', key)
    elseif to == 'value' and lasts == '' then
      call('SET', key, head .. ARGV[i + 4])
    elseif to == 'value' then
      call('SET', key, head .. ARGV[i + 4], 'PX', lasts)
    end
    if to ~= 'same' and string.sub(key, #P + 2, #P + 2) == 'r' then
      index(key, to, ARGV[i + 1] == '', version)
    end
  end
  return head
end
