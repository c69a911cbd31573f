-- Holds one of a tenant's unfinished jobs for a job, never more than the limit, each for a time.
-- KEYS 1 open sorted set of job ids by expiry
-- ARGV 1 job id
-- ARGV 2 life ms
-- ARGV 3 limit count
-- RETURNS held count | already count | full count

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local count = redis.call('ZCOUNT', KEYS[1], string.format('(%d', now_ms), '+inf')
local expires_ms = redis.call('ZSCORE', KEYS[1], ARGV[1])
if expires_ms and tonumber(expires_ms) > now_ms then
  return {'already', tostring(count)}
end
if count >= tonumber(ARGV[3]) then
  return {'full', tostring(count)}
end
redis.call('ZADD', KEYS[1], string.format('%d', now_ms + tonumber(ARGV[2])), ARGV[1])
-- After ZADD: a cluster whose slot moves refuses a key that is not there, as when all have expired.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now_ms))
local life_ms = tonumber(ARGV[2]) + 60000
if redis.call('PTTL', KEYS[1]) < life_ms then
  redis.call('PEXPIRE', KEYS[1], life_ms)
end
return {'held', tostring(count + 1)}
