-- Frees the slot that one attempt of a job holds, and no other; counts those that are held still.
-- KEYS 1 slots sorted set of job|attempt by expiry
-- ARGV 1 member job|attempt
-- RETURNS released count | absent count

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
-- Counted first: a cluster whose slot moves refuses a key that is not there, and ZREM may remove it.
local count = redis.call('ZCOUNT', KEYS[1], string.format('(%d', now_ms), '+inf')
local expires_ms = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not expires_ms then
  return {'absent', tostring(count)}
end
redis.call('ZREM', KEYS[1], ARGV[1])
return {'released', tostring(tonumber(expires_ms) > now_ms and count - 1 or count)}
