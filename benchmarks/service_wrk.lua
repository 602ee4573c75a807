-- Open-loop load with wrk: one thread a client, one connection a thread, and request n of client k
-- is due at START + (n * CLIENTS + k) / RATE, whatever became of those before it. RECORDS gets a line
-- an answer: when it was due (seconds from START), how late it was sent, how long after it was due
-- the answer came (both seconds), the status, and 1 when the answer says OK.

local ffi = require("ffi")
ffi.cdef [[
typedef struct { long seconds, nanoseconds; } moment;
int clock_gettime(int clock, moment *at);
]]
local MONOTONIC = 1
local NEVER = 3600000 -- milliseconds
local PER_CLIENT = 8  -- images that a client sends in turn

local at = ffi.new("moment")
local function now()
  ffi.C.clock_gettime(MONOTONIC, at)
  return tonumber(at.seconds) + tonumber(at.nanoseconds) * 1e-9
end

local function setting(name)
  return tonumber(os.getenv(name))
end

local threads = {}

function setup(thread)
  thread:set("client", #threads)
  table.insert(threads, thread)
end

function init()
  rate, seconds, clients = setting("RATE"), setting("SECONDS"), setting("CLIENTS")
  start, images = setting("START"), setting("IMAGES")
  wrk.headers["Content-Type"] = "application/json"
  requests, sent, records = {}, 0, ""
  for n = 0, PER_CLIENT - 1 do
    local name = (client * PER_CLIENT + n) % images .. ".json"
    local file = assert(io.open(os.getenv("BODIES") .. "/" .. name, "rb"))
    requests[n] = wrk.format("POST", nil, nil, file:read("*a"))
    file:close()
  end
end

function delay()
  due = start + (sent * clients + client) / rate
  if due >= start + seconds then
    return NEVER
  end
  return math.max(0, math.ceil((due - now()) * 1000))
end

function request()
  if not due then -- wrk asks client 0 for a request before it begins, to look at it
    return requests[0]
  end
  begun = now()
  sent = sent + 1
  return requests[sent % PER_CLIENT]
end

function response(status, _, body)
  local ok = status == 200 and body:find('"OK"', 1, true)
  records = records .. string.format(
    "%.6f %.6f %.6f %d %d\n",
    due - start, begun - due, now() - math.min(due, begun), status, ok and 1 or 0
  )
end

function done()
  local file = assert(io.open(os.getenv("RECORDS"), "w"))
  for _, thread in ipairs(threads) do
    file:write(thread:get("records"))
  end
  file:close()
end
