-- ARGV: request. Gives what was answered to it.
return Q.seen(ARGV[1]) or { 'unknown' }
