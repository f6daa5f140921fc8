-- What the Redis queue does on the server; each call is one atomic operation. The files of this directory are one
-- script: script.lua (the keys, and how messages are moved), settle.lua, reserve.lua, browse.lua, operations.lua.
--
-- The keys, in this order:
--
--   NAME                list    payloads that wait, as queue-front's redisd writes (RPUSH) and reads (LPOP) them
--   {NAME}:payloads     hash    id -> payload, of what is reserved or deferred
--   {NAME}:leases       zset    id -> when the lease of a reserved one ends
--   {NAME}:deliveries   hash    id -> how often a reserved one has been handed out
--   {NAME}:deferred     zset    id -> when a deferred one is due
--   NAME_DEAD           list    payloads that were buried
--
-- An id is the receipt of the latest reservation: the name of its exchange, a colon, and its number in the answer.
-- Times are microseconds on the server's clock.
--
-- Redis rolls nothing back. So a message is written to its new place before it is removed from the old one, and when a
-- command fails (a missing right, a key of another type), the new place is cleared.
--
-- Needs Redis 5.0: before it, a script that has read the clock could not write.

local call = redis.call
local list, payloads, leases, deliveries, deferred, dead = unpack(KEYS)
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

-- Removing is tried here, where it changes nothing, so that it cannot fail later. It also is the first write, after
-- which a Redis whose memory is full no longer refuses commands that need some: a full Redis can still be drained.
local function prepare()
  call('ZREM', leases, '')
  call('HDEL', payloads, '')
  call('HDEL', deliveries, '')
end

-- Return the result of change(); when it fails, undo it and raise its error.
local function attempt(change, undo)
  local done, result = pcall(change)
  if done then return result end
  undo()
  error(result, 0)
end

-- Delete the payloads and counts of these ids.
local function delete(ids)
  for first = 1, #ids, 1000 do
    local last = math.min(first + 999, #ids)
    call('HDEL', payloads, unpack(ids, first, last))
    call('HDEL', deliveries, unpack(ids, first, last))
  end
end

-- Reserve messages {id, payload, deliveries, end of the lease}, and remove them by remove_old() from where they were.
local function hold(messages, remove_old)
  local ids, bodies, counts, ends = {}, {}, {}, {}
  for n, message in ipairs(messages) do
    local id = message[1]
    ids[n], bodies[2 * n - 1], counts[2 * n - 1], ends[2 * n] = id, id, id, id
    bodies[2 * n], counts[2 * n], ends[2 * n - 1] = message[2], message[3], message[4]
  end
  local function change()
    call('HSET', payloads, unpack(bodies))
    call('HSET', deliveries, unpack(counts))
    call('ZADD', leases, unpack(ends))
    return remove_old()
  end
  local function undo()
    call('ZREM', leases, unpack(ids))
    delete(ids)
  end
  return attempt(change, undo)
end
