-- Gives a job back to the node of the attempt before, which turns out to work on it still, unless the next attempt was given to someone.
-- KEYS 1 job hash
-- ARGV 1 attempt number that the node works on
-- ARGV 2 node id
-- RETURNS taken | current | gone

local job = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'node', 'history')
if job[2] == ARGV[1] and job[3] == ARGV[2] and (job[1] == 'assigned' or job[1] == 'running') then
  return {'current'}
end
if job[1] ~= 'queued' or job[2] ~= string.format('%d', tonumber(ARGV[1]) + 1) or not job[4]
  or job[4] == '' then
  return {'gone'}
end
local entries = cjson.decode('[' .. job[4] .. ']')
local last = table.remove(entries)
if last.attempt ~= tonumber(ARGV[1]) or last.node ~= ARGV[2] or last.code then
  return {'gone'}
end
-- The attempt has not failed after all.
for i, entry in ipairs(entries) do
  entries[i] = cjson.encode(entry)
end
redis.call('HSET', KEYS[1], 'state', 'running', 'attempt', ARGV[1], 'node', ARGV[2],
  'history', table.concat(entries, ','))
return {'taken'}
