-- ARGV: lower and upper end, place, how many. Registers that went by themselves are taken off
-- first, so that places stay.
local at, found = P .. ':index:r', nil
local gone
repeat
  gone = false
  found = call('ZRANGEBYLEX', at, ARGV[1], ARGV[2], 'LIMIT', ARGV[3], ARGV[4])
  for _, name in ipairs(found) do
    if call('EXISTS', P .. ':r:' .. name) == 0 then
      call('ZREM', at, name)
      gone = true
    end
  end
until not gone
return found
