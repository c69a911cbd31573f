-- Files, once, the terminal messages that an instance sent a session while the store was away, in the places they were sent under; what ended here meanwhile moves behind them.
-- KEYS 1 meta hash
-- KEYS 2 open sorted set of job ids by deadline
-- KEYS 3 outbox stream, ids seq-0
-- KEYS 4.. jobs hashes, one for each entry
-- ARGV 1 base last seq sent before the store went away
-- ARGV 2 entries JSON list of {job_id, state, body, brief}
-- ARGV 3 token of this journal
-- ARGV 4 retention ms
-- RETURNS settled seq | already seq | unknown

local meta = redis.call('HMGET', KEYS[1], 'seq', 'settled')
if not meta[1] then
  return {'unknown'}
end
if meta[2] == ARGV[3] then
  return {'already', meta[1]}
end
local at = tonumber(ARGV[1])
local unseen, twins = {}, {}
if tonumber(meta[1]) > at then
  local all = redis.call('XRANGE', KEYS[3], '-', '+')
  redis.call('DEL', KEYS[3])
  for _, entry in ipairs(all) do
    if tonumber(string.match(entry[1], '^%d+')) > at then
      unseen[#unseen + 1] = entry
    else
      redis.call('XADD', KEYS[3], entry[1], 'body', entry[2][2])
    end
  end
end
for i, entry in ipairs(cjson.decode(ARGV[2])) do
  at = at + 1
  local seq = string.format('%d', at)
  redis.call('XADD', KEYS[3], seq .. '-0', 'body', entry.body)
  local twin = redis.call('HGET', KEYS[i + 3], 'seq')
  if twin then
    twins[twin .. '-0'] = true
  end
  redis.call('DEL', KEYS[i + 3])
  redis.call('HSET', KEYS[i + 3], 'state', entry.state, 'attempt', '0', 'node', '',
    'deadline_ms', '0', 'accepted_ms', '0', 'brief', entry.brief, 'seq', seq)
  redis.call('PEXPIRE', KEYS[i + 3], ARGV[4])
  redis.call('ZREM', KEYS[2], entry.job_id)
end
for _, entry in ipairs(unseen) do
  if not twins[entry[1]] then
    at = at + 1
    redis.call('XADD', KEYS[3], string.format('%d-0', at), 'body', entry[2][2])
  end
end
redis.call('HSET', KEYS[1], 'seq', string.format('%d', at), 'settled', ARGV[3])
for i = 1, 3 do
  redis.call('PEXPIRE', KEYS[i], ARGV[4])
end
return {'settled', string.format('%d', at)}
