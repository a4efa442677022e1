-- ARGV: until when it may be done or nothing, then the changes.
local count = (#ARGV - 1) / FIELDS
local other, there = changed(2, count, ARGV[1] ~= '' and now >= tonumber(ARGV[1]))
if other then
  return other
end
return { 'done', write(2, count, there), text(now) }
