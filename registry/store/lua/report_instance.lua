-- Files an instance's report, stamped with the server's time.
-- KEYS 1 instances hash
-- ARGV 1 instance_id id
-- ARGV 2 report JSON
-- RETURNS filed now_ms

local time = redis.call('TIME')
local now_ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], ARGV[1], now_ms .. '|' .. ARGV[2])
return {'filed', now_ms}
