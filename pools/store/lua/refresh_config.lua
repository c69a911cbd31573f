-- Prolongs the published configuration's life while its leader lives.
-- KEYS 1 leader string
-- KEYS 2 epoch integer
-- KEYS 3 config JSON
-- ARGV 1 candidate id
-- ARGV 2 epoch fencing token
-- ARGV 3 ttl ms
-- RETURNS refreshed | absent | stale

if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return {'stale'}
end
return {redis.call('PEXPIRE', KEYS[3], ARGV[3]) == 1 and 'refreshed' or 'absent'}
