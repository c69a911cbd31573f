-- Names the reservations of a node that have not expired, by the server's own time.
-- KEYS 1 slots sorted set of job|attempt by expiry
-- RETURNS held members

local time = redis.call('TIME')
local now_ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
return {'held', unpack(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now_ms, '+inf'))}
