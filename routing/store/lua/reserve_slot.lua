-- Reserves one slot of a living node for one attempt of a job, never beyond the node's capacity nor the caller's ceiling.
-- KEYS 1 slots sorted set of job|attempt by expiry
-- KEYS 2 owner string
-- KEYS 3 presence string, the capacity open to reservations
-- ARGV 1 member job|attempt
-- ARGV 2 lease ms
-- ARGV 3 ceiling reservations the node may hold before, or -1 for as many as it has slots
-- RETURNS reserved owner count | already owner count | full count | busier count | gone

local owner = redis.call('GET', KEYS[2])
local capacity = redis.call('GET', KEYS[3])
if not owner or not capacity then
  return {'gone'}
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local count = redis.call('ZCOUNT', KEYS[1], string.format('(%d', now_ms), '+inf')
local expires_ms = redis.call('ZSCORE', KEYS[1], ARGV[1])
if expires_ms and tonumber(expires_ms) > now_ms then
  return {'already', owner, tostring(count)}
end
if count >= tonumber(capacity) then
  return {'full', tostring(count)}
end
local ceiling = tonumber(ARGV[3])
if ceiling >= 0 and count > ceiling then
  return {'busier', tostring(count)}
end
redis.call('ZADD', KEYS[1], string.format('%d', now_ms + tonumber(ARGV[2])), ARGV[1])
-- After ZADD: a cluster whose slot moves refuses a key that is not there, as when all have expired.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now_ms))
-- The set lives as long as its longest reservation, and a minute more.
local life_ms = tonumber(ARGV[2]) + 60000
if redis.call('PTTL', KEYS[1]) < life_ms then
  redis.call('PEXPIRE', KEYS[1], life_ms)
end
return {'reserved', owner, tostring(count + 1)}
