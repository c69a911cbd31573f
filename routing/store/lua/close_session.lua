-- Marks a session closed, so that it takes nothing more and cannot be resumed, and names its open jobs.
-- KEYS 1 meta hash
-- KEYS 2 open sorted set of job ids by deadline
-- RETURNS closed jobs | unknown

if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'unknown'}
end
redis.call('HSET', KEYS[1], 'closed', '1')
return {'closed', unpack(redis.call('ZRANGE', KEYS[2], 0, 999))}
