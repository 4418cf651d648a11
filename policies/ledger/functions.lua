#!lua name=tollway1
-- The ledger: every movement of money and of limits, each one atomic step on the server.
--
-- Rules of this file:
--   * Only `redis.*` is used, so that the library runs on Redis 7.0 and on Valkey alike. `server.*` is not available.
--   * Time is the server's. No function takes it from a caller; lengths of time come in as arguments.
--   * Everything is checked before the first write: a script that fails half-way is not rolled back.
--   * All keys of one call carry one hash tag, so that a cluster can run it. Only `due` takes keys of many shards; it is
--     called with all of them on a single server and with one shard at a time on a cluster.
--   * Lua numbers are doubles. What is added here (avail, held) stays below 2^53 because a balance may not exceed $4 M;
--     what only ever grows (granted, spent, the totals) is added by HINCRBY, which counts in 64-bit integers. Numbers
--     become text through int(), never through tostring() or `..`, which would write 1.8e15 as an exponent.
--
-- Keys of a shard, after the tag: a:<account> hash, x zset (open holds by expiry), h hash (hold records),
-- tot hash (running totals), accounts set, j stream (journal), gr hash (grants), g:<id> string (finished ids),
-- gl list (finished ids, newest first).
--
-- Fields of an account: avail, held, spent, granted (nano-dollars), c (open holds), c:<key> (open holds of a key),
-- l:<key> (spent + held by a key), t:... (theoretical arrival time of one limit, microseconds).

local ACCOUNT, KEY, AMOUNT, DIMS, META, CHARGE, COST, CHECKPOINT = 1, 2, 3, 4, 5, 6, 7, 8  -- slots of a hold record
local CONCURRENCY_RETRY_US = 1000000

local function int(n)
  return string.format('%.0f', n)
end

local function number(text)
  return tonumber(text or 0) or 0
end

local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- Microseconds that a quantity takes out of a limit; rounded once, downwards, so that exactly `limit` fit into a period.
local function emission_us(quantity, limit, period_us)
  return math.floor(quantity * period_us / limit)
end

-- What is known of a finished id: state (S settled, V voided, X captured), charge, available then, whether capped, account.
local function finished(key)
  local text = redis.call('GET', key)
  if not text then
    return nil
  end
  local state, charge, avail, capped, account = string.match(text, '^(%u) (%d+) (%d+) (%d) ([^\n]*)\n')
  return {state, charge, avail, capped, account}
end

-- Marks an id as finished and keeps its generation record. `result` is what duplicates are answered.
local function finish(g, gl, id, result, record, ttl_s, now)
  redis.call('SET', g, table.concat(result, ' ') .. '\n' .. record, 'EX', ttl_s)
  redis.call('LPUSH', gl, int(now) .. ':' .. id)
end

-- The hold of an id, or nil.
local function open_hold(h, id)
  local packed = redis.call('HGET', h, id)
  return packed and cmsgpack.unpack(packed)
end

-- Closes a hold: the money that was not charged goes back, the concurrency too, and the token estimate is replaced by
-- `tokens` unless that is nil. Returns the available credit afterwards.
local function close(k, id, hold, charge, tokens)
  local key, amount, dims = hold[KEY], hold[AMOUNT], hold[DIMS]
  local fields = {'avail', 'held', 'c', 'c:' .. key}
  if tokens then
    for i = 1, #dims, 4 do
      fields[#fields + 1] = dims[i]
    end
  end
  local have = redis.call('HMGET', k.a, unpack(fields))
  local avail = number(have[1]) + amount - charge
  local set = {'avail', int(avail), 'held', int(number(have[2]) - amount),
    'c', int(number(have[3]) - 1), 'c:' .. key, int(number(have[4]) - 1)}
  if tokens then
    for i = 1, #dims, 4 do
      local limit, period_us, estimate = dims[i + 1], dims[i + 2], dims[i + 3]
      local change = emission_us(tokens, limit, period_us) - emission_us(estimate, limit, period_us)
      set[#set + 1] = dims[i]
      set[#set + 1] = int(number(have[4 + (i + 3) / 4]) + change)
    end
  end
  redis.call('HSET', k.a, unpack(set))
  if charge ~= amount then
    redis.call('HINCRBY', k.a, 'l:' .. key, int(charge - amount))
  end
  if charge > 0 then
    redis.call('HINCRBY', k.a, 'spent', int(charge))
    redis.call('HINCRBY', k.tot, 'spent', int(charge))
  end
  if amount > 0 then
    redis.call('HINCRBY', k.tot, 'held', int(-amount))
  end
  redis.call('ZREM', k.x, id)
  redis.call('HDEL', k.h, id)
  return avail
end

local function journal(j, type, line)
  redis.call('XADD', j, '*', 't', type, 'id', line.id, 'a', line.account, 'k', line.key, 'c', int(line.charge),
    'p', line.cost, 'u', int(line.now), 'm', line.meta, 'f', line.flags)
end

-- KEYS a x h tot accounts g
-- ARGS id account amount ttl_us key key_limit(-1: none) est_tokens meta, then per limit: field kind name limit period_us
-- ->   ok amount avail | dup amount avail | finished state | conflict
--      funds avail | key remaining | limited name retry_after_us
local function reserve(keys, args)
  local k = {a = keys[1], x = keys[2], h = keys[3], tot = keys[4]}
  local id, account, amount, ttl_us = args[1], args[2], tonumber(args[3]), tonumber(args[4])
  local key, key_limit, est_tokens, meta = args[5], tonumber(args[6]), tonumber(args[7]), args[8]

  local known = open_hold(k.h, id)
  if known then
    if known[ACCOUNT] ~= account then
      return {'conflict'}
    end
    return {'dup', known[AMOUNT], number(redis.call('HGET', k.a, 'avail'))}
  end
  local done = finished(keys[6])
  if done then
    return {'finished', done[1]}
  end

  local fields = {'avail', 'held', 'c', 'c:' .. key, 'l:' .. key}
  for i = 9, #args, 5 do
    fields[#fields + 1] = args[i]
  end
  local have = redis.call('HMGET', k.a, unpack(fields))
  local avail = number(have[1])
  if amount > avail then
    return {'funds', avail}
  end
  if key_limit >= 0 and number(have[5]) + amount > key_limit then
    return {'key', key_limit - number(have[5])}
  end

  -- First pass: no limit may refuse. The one that lasts longest is named.
  local now = now_us()
  local set, dims = {}, {}
  local refused, wait_us = nil, -1
  for i = 9, #args, 5 do
    local field, kind, name, limit, period_us = args[i], args[i + 1], args[i + 2], tonumber(args[i + 3]), tonumber(args[i + 4])
    local value = number(have[5 + (i - 4) / 5])
    local late_us
    if kind == 'conc' then
      late_us = value + 1 > limit and CONCURRENCY_RETRY_US or 0
    else
      local quantity = kind == 'tok' and math.min(est_tokens, limit) or 1
      local tat = math.max(now, value) + emission_us(quantity, limit, period_us)
      late_us = tat - now - period_us
      set[#set + 1] = field
      set[#set + 1] = int(tat)
      if kind == 'tok' then
        dims[#dims + 1] = field
        dims[#dims + 1] = limit
        dims[#dims + 1] = period_us
        dims[#dims + 1] = quantity
      end
    end
    if late_us > 0 and late_us > wait_us then
      refused, wait_us = name, late_us
    end
  end
  if refused then
    return {'limited', refused, wait_us}
  end

  -- Second pass: write.
  set[#set + 1], set[#set + 2] = 'avail', int(avail - amount)
  set[#set + 1], set[#set + 2] = 'held', int(number(have[2]) + amount)
  set[#set + 1], set[#set + 2] = 'c', int(number(have[3]) + 1)
  set[#set + 1], set[#set + 2] = 'c:' .. key, int(number(have[4]) + 1)
  redis.call('HSET', k.a, unpack(set))
  redis.call('HINCRBY', k.a, 'l:' .. key, int(amount))
  if amount > 0 then
    redis.call('HINCRBY', k.tot, 'held', int(amount))
  end
  if not have[1] then
    redis.call('SADD', keys[5], account)
  end
  redis.call('HSET', k.h, id, cmsgpack.pack({account, key, amount, dims, meta, 0, '0', ''}))
  redis.call('ZADD', k.x, int(now + ttl_us), id)
  return {'ok', amount, avail - amount}
end

-- KEYS x h
-- ARGS ttl_us, then per hold: id charge cost meta
-- ->   for each hold 1 (renewed) or 0 (no longer open)
local function progress(keys, args)
  local expiry = int(now_us() + tonumber(args[1]))
  local renewed = {}
  for i = 2, #args, 4 do
    local id, charge = args[i], tonumber(args[i + 1])
    local hold = open_hold(keys[2], id)
    if hold then
      hold[CHARGE] = math.min(charge, hold[AMOUNT])
      hold[COST] = args[i + 2]
      hold[CHECKPOINT] = args[i + 3]
      redis.call('HSET', keys[2], id, cmsgpack.pack(hold))
      redis.call('ZADD', keys[1], expiry, id)
    end
    renewed[#renewed + 1] = hold and 1 or 0
  end
  return renewed
end

local function closing_keys(keys)
  return {a = keys[1], x = keys[2], h = keys[3], tot = keys[4], j = keys[5], g = keys[6], gl = keys[7]}
end

-- An id that is finished answers every later call as its first one was answered.
local function repeated(done, account)
  if done[5] ~= account then
    return {'conflict'}
  end
  return {done[1], 1, tonumber(done[2]), tonumber(done[3]), tonumber(done[4])}
end

-- KEYS a x h tot j g gl
-- ARGS id account charge cost tokens(-1: unknown, the estimate stands) meta record ttl_s
-- ->   state duplicate charge avail capped | unknown | conflict
local function settle(keys, args)
  local k = closing_keys(keys)
  local id, account, charge, tokens = args[1], args[2], tonumber(args[3]), tonumber(args[5])
  local hold = open_hold(k.h, id)
  if not hold then
    local done = finished(k.g)
    return done and repeated(done, account) or {'unknown'}
  end
  if hold[ACCOUNT] ~= account then
    return {'conflict'}
  end
  local capped = charge > hold[AMOUNT]
  charge = math.min(charge, hold[AMOUNT])
  local now = now_us()
  local avail = close(k, id, hold, charge, tokens >= 0 and tokens or nil)
  journal(k.j, 'S', {id = id, account = account, key = hold[KEY], charge = charge, cost = args[4], now = now,
    meta = args[6] ~= '' and args[6] or hold[META], flags = capped and 'capped' or ''})
  finish(k.g, k.gl, id, {'S', int(charge), int(avail), capped and '1' or '0', account}, args[7], args[8], now)
  return {'S', 0, charge, avail, capped and 1 or 0}
end

-- KEYS a x h tot j g gl
-- ARGS id account record ttl_s
-- ->   state duplicate charge avail capped | conflict
-- An id that was never reserved is marked too: a reserve that is still on its way must find it finished.
local function void(keys, args)
  local k = closing_keys(keys)
  local id, account = args[1], args[2]
  local hold = open_hold(k.h, id)
  local avail
  if hold then
    if hold[ACCOUNT] ~= account then
      return {'conflict'}
    end
    avail = close(k, id, hold, 0, 0)
  else
    local done = finished(k.g)
    if done then
      return repeated(done, account)
    end
    avail = number(redis.call('HGET', k.a, 'avail'))
  end
  finish(k.g, k.gl, id, {'V', '0', int(avail), '0', account}, args[3], args[4], now_us())
  return {'V', 0, 0, avail, 0}
end

-- KEYS per shard: x h
-- ARGS most_per_shard
-- ->   open holds of all shards, {id, account, ...} of those past their expiry
local function due(keys, args)
  local now = int(now_us())
  local open, found = 0, {}
  for i = 1, #keys, 2 do
    local count = redis.call('ZCARD', keys[i])
    if count > 0 then
      open = open + count
      for _, id in ipairs(redis.call('ZRANGEBYSCORE', keys[i], '-inf', now, 'LIMIT', 0, args[1])) do
        local hold = open_hold(keys[i + 1], id)
        found[#found + 1] = id
        found[#found + 1] = hold and hold[ACCOUNT] or ''
      end
    end
  end
  return {open, found}
end

local function expired_record(id, hold, charge)
  local meta = hold[CHECKPOINT] ~= '' and hold[CHECKPOINT] or hold[META]
  return '{"id":' .. cjson.encode(id) .. ',"account":' .. cjson.encode(hold[ACCOUNT]) .. ',"key":' .. cjson.encode(hold[KEY])
    .. ',"state":"captured","charge_nanodollars":' .. int(charge) .. ',"meta":' .. (meta ~= '' and meta or '{}') .. '}'
end

-- KEYS x h tot j gl, then per hold: a g
-- ARGS ttl_s, then per hold: id account
-- ->   for each hold the captured charge, or -1 (renewed, finished or another account's)
-- A checkpoint of 0 gives everything back, the token estimate too; else the estimate stands, as the true count is unknown.
local function expire(keys, args)
  local now = now_us()
  local result = {}
  for i = 2, #args, 2 do
    local id, account = args[i], args[i + 1]
    local k = {x = keys[1], h = keys[2], tot = keys[3], j = keys[4], gl = keys[5], a = keys[i + 4], g = keys[i + 5]}
    local hold = open_hold(k.h, id)
    local expiry = redis.call('ZSCORE', k.x, id)
    local charge = -1
    if hold and expiry and tonumber(expiry) <= now and hold[ACCOUNT] == account then
      charge = hold[CHARGE]
      local record = expired_record(id, hold, charge)
      local avail = close(k, id, hold, charge, charge == 0 and 0 or nil)
      if charge > 0 then
        journal(k.j, 'X', {id = id, account = account, key = hold[KEY], charge = charge, cost = hold[COST], now = now,
          meta = hold[CHECKPOINT] ~= '' and hold[CHECKPOINT] or hold[META], flags = 'expired'})
      end
      finish(k.g, k.gl, id, {'X', int(charge), int(avail), '0', account}, record, args[1], now)
    end
    result[#result + 1] = charge
  end
  return result
end

-- KEYS a accounts tot j gr
-- ARGS id account amount most_balance meta
-- ->   ok avail | dup avail | conflict account amount | large balance
local function grant(keys, args)
  local a, gr = keys[1], keys[5]
  local id, account, amount = args[1], args[2], tonumber(args[3])
  local have = redis.call('HMGET', a, 'avail', 'held')
  local avail = number(have[1])
  local known = redis.call('HGET', gr, id)
  if known then
    if known == int(amount) .. ':' .. account then
      return {'dup', avail}
    end
    local then_amount, then_account = string.match(known, '^(%d+):(.*)$')
    return {'conflict', then_account, then_amount}
  end
  if avail + number(have[2]) + amount > tonumber(args[4]) then
    return {'large', avail + number(have[2])}
  end
  redis.call('HSET', gr, id, int(amount) .. ':' .. account)
  redis.call('HSET', a, 'avail', int(avail + amount))
  redis.call('HINCRBY', a, 'granted', int(amount))
  redis.call('HINCRBY', keys[3], 'granted', int(amount))
  redis.call('SADD', keys[2], account)
  journal(keys[4], 'G', {id = id, account = account, key = '', charge = amount, cost = '0', now = now_us(),
    meta = args[5], flags = ''})
  return {'ok', avail + amount}
end

-- KEYS accounts x h tot j, then a of every account is reached through the prefix in ARGS (same tag, same slot)
-- ARGS prefix
-- ->   totals, last journal id, ids of x, {id account key amount ...} of h, {account {field value ...} ...}
local function audit(keys, args)
  local last = redis.call('XREVRANGE', keys[5], '+', '-', 'COUNT', 1)
  local holds = {}
  local packed = redis.call('HGETALL', keys[3])
  for i = 1, #packed, 2 do
    local hold = cmsgpack.unpack(packed[i + 1])
    holds[#holds + 1] = packed[i]
    holds[#holds + 1] = hold[ACCOUNT]
    holds[#holds + 1] = hold[KEY]
    holds[#holds + 1] = int(hold[AMOUNT])
  end
  local accounts = {}
  for _, account in ipairs(redis.call('SMEMBERS', keys[1])) do
    accounts[#accounts + 1] = account
    accounts[#accounts + 1] = redis.call('HGETALL', args[1] .. account)
  end
  return {redis.call('HMGET', keys[4], 'granted', 'held', 'spent'), last[1] and last[1][1] or '0-0',
    redis.call('ZRANGE', keys[2], 0, -1), holds, accounts}
end

-- KEYS gl; the records are reached through the prefix in ARGS (same tag, same slot)
-- ARGS prefix cutoff_us ttl_us most
-- ->   how many were removed: those up to the cutoff, and those whose record has expired
local function trim(keys, args)
  local cutoff = math.max(tonumber(args[2]), now_us() - tonumber(args[3]))
  local removed = 0
  while removed < tonumber(args[4]) do
    local entry = redis.call('LINDEX', keys[1], -1)
    if not entry then
      break
    end
    local at, id = string.match(entry, '^(%d+):(.*)$')
    if tonumber(at) > cutoff then
      break
    end
    redis.call('RPOP', keys[1])
    redis.call('UNLINK', args[1] .. id)
    removed = removed + 1
  end
  return removed
end

redis.register_function('tollway1_reserve', reserve)
redis.register_function('tollway1_progress', progress)
redis.register_function('tollway1_settle', settle)
redis.register_function('tollway1_void', void)
redis.register_function('tollway1_expire', expire)
redis.register_function('tollway1_grant', grant)
redis.register_function('tollway1_trim', trim)
redis.register_function{function_name = 'tollway1_due', callback = due, flags = {'no-writes'}}
redis.register_function{function_name = 'tollway1_audit', callback = audit, flags = {'no-writes'}}
