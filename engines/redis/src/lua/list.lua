-- ARGV: space, lower and upper end, place, how many. Who went by himself is taken off first, so
-- that places stay.
local at, found = P .. ':index:' .. ARGV[1], nil
local gone
repeat
  gone = false
  found = call('ZRANGEBYLEX', at, ARGV[2], ARGV[3], 'LIMIT', ARGV[4], ARGV[5])
  for _, name in ipairs(found) do
    if call('EXISTS', P .. ':' .. ARGV[1] .. ':' .. name) == 0 then
      call('ZREM', at, name)
      gone = true
    end
  end
until not gone
return found
