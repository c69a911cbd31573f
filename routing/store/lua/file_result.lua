-- Ends a job that the store does not know with the session's next terminal message; a known one stays as it is.
-- KEYS 1 meta hash
-- KEYS 2 job hash
-- KEYS 3 outbox stream, ids seq-0
-- ARGV 1 state succeeded or failed
-- ARGV 2 body terminal message without seq
-- ARGV 3 brief JSON, as the job's first writer would have it
-- ARGV 4 retention ms
-- RETURNS filed seq | known | closed

if redis.call('EXISTS', KEYS[1]) == 0 then
  return {'closed'}
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return {'known'}
end
local seq = string.format('%d', redis.call('HINCRBY', KEYS[1], 'seq', 1))
redis.call('XADD', KEYS[3], seq .. '-0', 'body', ARGV[2])
redis.call('HSET', KEYS[2], 'state', ARGV[1], 'attempt', '0', 'node', '', 'deadline_ms', '0',
  'accepted_ms', '0', 'brief', ARGV[3], 'seq', seq)
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[4])
end
return {'filed', seq}
