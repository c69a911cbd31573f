-- Files a process's figures for its peers, forgets what is too old, and answers with all there are.
-- KEYS 1 figures hash
-- ARGV 1 instance_id id
-- ARGV 2 figures JSON
-- ARGV 3 life ms
-- RETURNS posted figures...

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local life_ms = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', now_ms) .. '|' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], life_ms)
local answer = {'posted'}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    local bar = string.find(all[i + 1], '|', 1, true)
    if now_ms - tonumber(string.sub(all[i + 1], 1, bar - 1)) > life_ms then
        redis.call('HDEL', KEYS[1], all[i])
    else
        answer[#answer + 1] = string.sub(all[i + 1], bar + 1)
    end
end
return answer
