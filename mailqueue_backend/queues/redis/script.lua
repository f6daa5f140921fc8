-- The operations of the Redis queue; each call of the script is atomic. The files of this directory form one script:
-- script.lua (the keys, and how messages are moved), settle.lua, reserve.lua, browse.lua, operations.lua.
--
-- The keys, in this order:
--
--   NAME                list    waiting payloads, as queue-front's redisd writes (RPUSH) and reads (LPOP) them
--   {NAME}:payloads     hash    id -> payload of a reserved or deferred message
--   {NAME}:leases       zset    id -> when the lease of a reserved message ends
--   {NAME}:deliveries   hash    id -> how often a reserved message has been handed out
--   {NAME}:deferred     zset    id -> when a deferred message is due
--   NAME_DEAD           list    buried payloads
--
-- An id is the receipt of the latest reservation: the name of its exchange, a colon, and its number in the answer.
-- Times are microseconds on the server's clock.
--
-- Redis does not roll back a script that fails. So a message is written to its new place before it is removed from the
-- old one, and if a command fails (a missing permission, a key of another type), the new place is cleared.
--
-- Requires Redis 5.0: in older releases, a script that has read the clock cannot write.

local call = redis.call
local list, payloads, leases, deliveries, deferred, dead = unpack(KEYS)
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

-- Try the commands that remove, where they change nothing, so that they cannot fail later. They are also the first
-- writes of the script: after a write, Redis no longer refuses commands for lack of memory, so a full Redis can be
-- drained.
local function prepare()
  call('ZREM', leases, '')
  call('HDEL', payloads, '')
  call('HDEL', deliveries, '')
end

-- Return the result of change(). If it fails, call undo() and raise the error.
local function attempt(change, undo)
  local done, result = pcall(change)
  if done then return result end
  undo()
  error(result, 0)
end

-- Delete the payloads and delivery counts of these ids.
local function delete(ids)
  for first = 1, #ids, 1000 do
    local last = math.min(first + 999, #ids)
    call('HDEL', payloads, unpack(ids, first, last))
    call('HDEL', deliveries, unpack(ids, first, last))
  end
end

-- Reserve messages, each {id, payload, deliveries, end of lease}; remove_old() removes them from their old place.
-- Return its result.
local function hold(messages, remove_old)
  -- The arguments of the commands: ids and payloads, ids and delivery counts, ends of leases and ids.
  local ids, new_payloads, new_deliveries, new_leases = {}, {}, {}, {}
  for n, message in ipairs(messages) do
    local id = message[1]
    ids[n], new_payloads[2 * n - 1], new_deliveries[2 * n - 1], new_leases[2 * n] = id, id, id, id
    new_payloads[2 * n], new_deliveries[2 * n], new_leases[2 * n - 1] = message[2], message[3], message[4]
  end
  local function change()
    call('HSET', payloads, unpack(new_payloads))
    call('HSET', deliveries, unpack(new_deliveries))
    call('ZADD', leases, unpack(new_leases))
    return remove_old()
  end
  local function undo()
    call('ZREM', leases, unpack(ids))
    delete(ids)
  end
  return attempt(change, undo)
end
