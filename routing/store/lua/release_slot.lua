-- Frees the slot that one attempt of a job holds, and no other; counts those that are held still.
-- KEYS 1 slots sorted set of job|attempt by expiry
-- ARGV 1 member job|attempt
-- RETURNS released count | absent count

local removed = redis.call('ZREM', KEYS[1], ARGV[1])
local time = redis.call('TIME')
local now_ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local count = tostring(redis.call('ZCOUNT', KEYS[1], '(' .. now_ms, '+inf'))
return {removed == 1 and 'released' or 'absent', count}
