-- Remembers that a node drains, or no longer does, and closes or opens its slots at once.
-- KEYS 1 presence string
-- KEYS 2 identity hash
-- ARGV 1 draining 1 or 0
-- ARGV 2 capacity slots when not draining
-- RETURNS set

if ARGV[1] == '1' then
  redis.call('HSET', KEYS[2], 'draining', '1')
else
  redis.call('HDEL', KEYS[2], 'draining')
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('SET', KEYS[1], ARGV[1] == '1' and '0' or ARGV[2], 'KEEPTTL')
end
return {'set'}
