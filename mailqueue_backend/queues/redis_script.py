"""What the Redis queue does on the server: one Lua script, of which each call is one atomic operation.

Its keys, in this order::

    NAME                list    payloads that wait, as queue-front's redisd writes (RPUSH) and reads (LPOP) them
    {NAME}:payloads     hash    id -> payload, of what is reserved or deferred
    {NAME}:leases       zset    id -> when the lease of a reserved one ends
    {NAME}:deliveries   hash    id -> how often a reserved one has been handed out
    {NAME}:deferred     zset    id -> when a deferred one is due
    NAME_DEAD           list    payloads that were buried

An id is the receipt of the latest reservation. Times are microseconds on the server's clock: ours does not
matter, and what is deferred later is due later.

The first write of each operation takes something away: a Redis whose memory is full refuses a command that
needs more, but not once its script has written. So a full Redis can still be drained.

Needs Redis 5.0: before it, a script that has read the clock could not write.
"""

from __future__ import annotations


def keys(name: str, dead_name: str) -> list[str]:
    """Give the keys of a queue, in the script's order."""
    return [name, *(f"{{{name}}}:{part}" for part in ("payloads", "leases", "deliveries", "deferred")), dead_name]


SCRIPT = """
local call = redis.call
local list, payloads, leases, deliveries, deferred, dead = unpack(KEYS)
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

-- A key of a wrong type must fail here, before anything is taken away.
call('LLEN', list)

-- The id whose time came first; nil when none has come.
local function first_due(times)
  return call('ZRANGEBYSCORE', times, '-inf', now, 'LIMIT', 0, 1)[1]
end

-- Forget an id; 1 if it was there, else 0.
local function forget(times, id)
  local found = call('ZREM', times, id)
  if found == 1 then
    call('HDEL', payloads, id)
    call('HDEL', deliveries, id)
  end
  return found
end

-- Forget an id and give its payload (false if the hash was deleted or evicted) and its deliveries.
local function remove(times, id)
  local payload, count = call('HGET', payloads, id), call('HGET', deliveries, id)
  forget(times, id)
  return payload, tonumber(count or 0)
end

-- Move a deferred message that is due to the tail. One is enough, since every reserve takes only one.
local function move_due()
  local id = first_due(deferred)
  local payload = id and remove(deferred, id)
  if payload then call('RPUSH', list, payload) end
end

-- Take an expired lease, unless 'fresh' is wanted, else the head of the list, else, if 'early', what is deferred.
local function take(which)
  local id = which ~= 'fresh' and first_due(leases)
  if id then return remove(leases, id) end
  local payload = call('LPOP', list)
  if payload or which ~= 'early' then return payload, 0 end
  id = call('ZRANGE', deferred, 0, 0)[1]
  if id then return remove(deferred, id) end
end

local operation = {}

-- {payload, deliveries}, or false when there is nothing to take. The same receipt gets the same answer again.
function operation.reserve(receipt, lease, which)
  if call('ZSCORE', leases, receipt) then
    return {call('HGET', payloads, receipt), tonumber(call('HGET', deliveries, receipt))}
  end
  move_due()
  local payload, count = take(which)
  if not payload then return false end
  call('HSET', payloads, receipt, payload)
  call('HSET', deliveries, receipt, count + 1)
  call('ZADD', leases, now + lease, receipt)
  return {payload, count + 1}
end

-- This and the next ones: 1, or 0 when the receipt does not hold a message, and then nothing is changed.
function operation.ack(receipt)
  return forget(leases, receipt)
end

function operation.ack_and_reserve(receipt, next_receipt, lease, which)
  return {operation.ack(receipt), operation.reserve(next_receipt, lease, which)}
end

function operation.release(receipt, delay, payload)
  if not call('ZSCORE', leases, receipt) then return 0 end
  if tonumber(delay) > 0 then
    call('ZREM', leases, receipt)
    call('HDEL', deliveries, receipt)
    call('ZADD', deferred, now + delay, receipt)
    if payload then call('HSET', payloads, receipt, payload) end
  else
    payload = payload or call('HGET', payloads, receipt)
    forget(leases, receipt)
    call('RPUSH', list, payload)
  end
  return 1
end

-- What was handed out 'count' times before lies again where it was taken from.
function operation.put_back(receipt, count)
  if not call('ZSCORE', leases, receipt) then return 0 end
  if tonumber(count) > 0 then
    call('ZREM', leases, receipt)
    call('HSET', deliveries, receipt, count)
    call('ZADD', leases, now, receipt)
  else
    local payload = remove(leases, receipt)
    if payload then call('LPUSH', list, payload) end
  end
  return 1
end

function operation.bury(receipt)
  call('LLEN', dead)
  if not call('ZSCORE', leases, receipt) then return 0 end
  local payload = remove(leases, receipt)
  call('RPUSH', dead, payload)
  return 1
end

-- {due, deferred, reserved, dead}
function operation.counts()
  local ready, expired = call('ZCOUNT', deferred, '-inf', now), call('ZCOUNT', leases, '-inf', now)
  return {
    call('LLEN', list) + ready + expired,
    call('ZCARD', deferred) - ready,
    call('ZCARD', leases) - expired,
    call('LLEN', dead)
  }
end

return operation[ARGV[1]](unpack(ARGV, 2))
"""
