local count = #ARGV / FIELDS
local other, there = changed(1, count)
if other then
  return other
end
return { 'done', write(1, count, there), text(now) }
