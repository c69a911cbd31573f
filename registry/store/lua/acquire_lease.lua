-- Takes the lease if no one else holds it, and grants an epoch higher than every epoch ever seen.
-- KEYS 1 leader string
-- KEYS 2 epoch integer
-- ARGV 1 candidate id
-- ARGV 2 floor highest epoch the candidate has seen
-- ARGV 3 ttl ms
-- RETURNS granted epoch | held holder epoch remaining_ms

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return {'held', holder, redis.call('GET', KEYS[2]) or '0', tostring(redis.call('PTTL', KEYS[1]))}
end
local epoch = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[2])) + 1
redis.call('SET', KEYS[2], string.format('%d', epoch))
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return {'granted', string.format('%d', epoch)}
