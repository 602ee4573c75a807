// Open-loop load with k6: iteration n is due n / RATE seconds after the start, whatever became of
// those before it. Prints one JSON object: what became of them, and the milliseconds from when each
// was due to its answer (good to one).

import exec from 'k6/execution';
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';

const rate = Number(__ENV.RATE);
const clients = Number(__ENV.CLIENTS);
const deadline = Number(__ENV.DEADLINE) * 1000;
// bytes: a string would be encoded again for each request, which costs as much as sending it
const bodies = [];
for (let n = 0; n < Number(__ENV.IMAGES); n++) {
  bodies.push(open(`${__ENV.BODIES}/${n}.json`, 'b'));
}
const params = { headers: { 'Content-Type': 'application/json' }, timeout: '10s' };
const answered = new Trend('answered');
const fromSending = new Trend('from_sending');
const behind = new Trend('behind');
const good = new Counter('good');
const refused = new Counter('refused');
const failed = new Counter('failed');

export const options = {
  discardResponseBodies: true,
  systemTags: [],
  summaryTrendStats: ['p(50)', 'p(99)', 'max', 'count'],
  scenarios: {
    steady: {
      executor: 'constant-arrival-rate',
      rate,
      timeUnit: '1s',
      duration: `${__ENV.SECONDS}s`,
      preAllocatedVUs: clients,
      maxVUs: clients,
    },
  },
};

export default function () {
  const number = exec.scenario.iterationInTest;
  const late = Math.max(0, Date.now() - exec.scenario.startTime - (number * 1000) / rate);
  const response = http.post(__ENV.URL, bodies[number % bodies.length], params);
  const timings = response.timings;
  const sending = timings.blocked + timings.connecting + timings.duration;
  const taken = late + sending;
  behind.add(late);
  if (response.status === 200) {
    answered.add(taken);
    fromSending.add(sending);
    if (taken <= deadline) good.add(1);
  } else {
    (response.status === 429 ? refused : failed).add(1);
  }
}

export function handleSummary(data) {
  const values = {};
  const trends = ['answered', 'from_sending', 'behind'];
  const counters = ['good', 'refused', 'failed', 'dropped_iterations'];
  for (const name of trends.concat(counters)) {
    values[name] = data.metrics[name] ? data.metrics[name].values : {};
  }
  return { stdout: JSON.stringify(values) };
}
