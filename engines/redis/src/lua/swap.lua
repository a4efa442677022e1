local count = #ARGV / FIELDS
local other = changed(1, count)
if other then
  return other
end
return { 'done', write(1, count), text(now) }
