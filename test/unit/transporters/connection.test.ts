import { FakeClock, settle } from "../../../testkit/fake-clock.ts";
import { isMismatch, isRefusal, LastingConnection, retryDelay } from "../../../transporters/connection.ts";
import type { ChannelEvents, ConnectionEvents } from "../../../transporters/ports.ts";
import { Warnings } from "../../../transporters/warnings.ts";
import { FakeChannel } from "./fake-channel.ts";

test("retries begin quick, slow down to three seconds, and are spread by chance", () => {
  const longest = [0, 1, 2, 3, 4, 50].map((attempt) => retryDelay(attempt, () => 1));
  const shortest = [0, 1, 2, 3, 4, 50].map((attempt) => retryDelay(attempt, () => 0));
  expect(longest).toEqual([100, 200, 400, 800, 1600, 3000]);
  expect(shortest).toEqual(longest.map((ms) => ms / 2));
});

test.each([
  [
    'Handshake terminated by server: 403 (ACCESS-REFUSED) with message "ACCESS_REFUSED - Login was refused"',
    true,
  ],
  ["Expected ConnectionOpenOk; got <ConnectionClose … NOT_ALLOWED - access to vhost 'x' refused", true],
  ["connect ECONNREFUSED 127.0.0.1:5672", false],
  ["Socket closed abruptly during opening handshake", false],
  ["connect ECONNREFUSED 127.0.0.1:403", false],
])("%s is a refusal: %p", (message, refused) => {
  expect(isRefusal(new Error(message))).toBe(refused);
});

test.each([
  ["PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/'", true],
  ["PRECONDITION_FAILED - message size 17825792 is larger than configured max size 16777216", false],
  ["PRECONDITION_FAILED - unknown delivery tag 7", false],
  ["NOT_FOUND - no queue 'inequivalent arg' in vhost '/'", false],
])("%s is a queue with other arguments: %p", (message, mismatch) => {
  expect(isMismatch(Object.assign(new Error(message), { code: 406 }))).toBe(mismatch);
});

/** A RabbitMQ that accepts, refuses, breaks and blocks connections as it is told to. */
class FakeRabbit {
  readonly clock = new FakeClock();
  readonly log: string[] = [];
  readonly fatal: string[] = [];
  readonly urls: string[] = [];
  /** What the next attempts end in; undefined, or none left: a connection. */
  readonly failures: (Error | undefined)[] = [];
  prepare: () => Promise<void> = async () => {};
  events: ConnectionEvents[] = [];
  closed = 0;
  readonly channels: ChannelEvents[] = [];

  readonly connection = new LastingConnection({
    urls: ["amqp://a", "amqp://b"],
    clock: this.clock,
    random: () => 1,
    warnings: new Warnings({ info() {}, warn() {}, error() {} }, () => this.clock.now()),
    fatal: (message) => this.fatal.push(message),
    connect: async (url, events) => {
      this.urls.push(url);
      const failure = this.failures.shift();
      if (failure) throw failure;
      this.events.push(events);
      return {
        openChannel: async (channel = {}) => {
          this.channels.push(channel);
          return new FakeChannel();
        },
        close: async () => {
          this.closed++;
        },
      };
    },
    user: {
      prepare: () => this.prepare(),
      opened: () => this.log.push("opened"),
      blocked: () => this.log.push("blocked"),
      closed: () => this.log.push("closed"),
      returned() {},
      drained() {},
    },
  });

  breakOff(): void {
    this.channels.at(-1)?.closed?.("channel: broken");
    this.events.at(-1)?.closed("broken");
  }
}

test("tries one address after the other until one answers", async () => {
  const rabbit = new FakeRabbit();
  rabbit.failures.push(new Error("down"), new Error("down"));
  const started = rabbit.connection.start();
  expect(rabbit.connection.state).toBe("connecting");
  await rabbit.clock.advance(99);
  expect(rabbit.urls).toEqual(["amqp://a"]);
  await rabbit.clock.advance(1000);
  await started;
  expect(rabbit.urls).toEqual(["amqp://a", "amqp://b", "amqp://a"]);
  expect(rabbit.connection.state).toBe("open");
  expect(rabbit.log).toEqual(["opened"]);
});

test("a lost connection is replaced, and its user told once", async () => {
  const rabbit = new FakeRabbit();
  await rabbit.connection.start();
  rabbit.breakOff();
  await settle();
  expect(rabbit.connection.channel).toBeUndefined();
  await rabbit.clock.advance(200);
  expect(rabbit.connection.state).toBe("open");
  expect(rabbit.log).toEqual(["opened", "closed", "opened"]);
  expect(rabbit.closed).toBe(1);
});

test("a channel that dies alone takes its connection along", async () => {
  const rabbit = new FakeRabbit();
  await rabbit.connection.start();
  rabbit.channels[0]?.closed?.("channel: unknown delivery tag");
  await rabbit.clock.advance(200);
  expect(rabbit.closed).toBe(1);
  expect(rabbit.log).toEqual(["opened", "closed", "opened"]);
});

test("a blocked connection is open again when RabbitMQ says so, and may be lost meanwhile", async () => {
  const rabbit = new FakeRabbit();
  await rabbit.connection.start();
  rabbit.events[0]?.blocked("low on memory");
  expect(rabbit.connection.state).toBe("blocked");
  expect(rabbit.connection.channel).toBeDefined();
  rabbit.events[0]?.unblocked();
  expect(rabbit.connection.state).toBe("open");
  rabbit.events[0]?.blocked("low on memory");
  rabbit.breakOff();
  await rabbit.clock.advance(200);
  rabbit.events[0]?.unblocked();
  expect(rabbit.connection.state).toBe("open");
  expect(rabbit.log).toEqual(["opened", "blocked", "opened", "blocked", "closed", "opened"]);
});

test("one that is lost, or blocked, while it is prepared", async () => {
  const rabbit = new FakeRabbit();
  rabbit.prepare = async () => {
    if (rabbit.events.length === 1) rabbit.breakOff();
    else rabbit.events.at(-1)?.blocked("low on memory");
  };
  void rabbit.connection.start();
  await rabbit.clock.advance(200);
  expect(rabbit.connection.state).toBe("blocked");
  expect(rabbit.log).toEqual(["closed", "blocked"]);
});

test("a member of RabbitMQ that leaves a command unanswered is given up", async () => {
  const rabbit = new FakeRabbit();
  rabbit.prepare = () => (rabbit.events.length === 1 ? new Promise(() => {}) : Promise.resolve());
  void rabbit.connection.start();
  await rabbit.clock.advance(20_000);
  expect(rabbit.connection.state).toBe("open");
  expect(rabbit.urls).toEqual(["amqp://a", "amqp://b"]);
});

test("only the first connection may be refused for good", async () => {
  const rabbit = new FakeRabbit();
  await rabbit.connection.start();
  rabbit.failures.push(new Error("ACCESS_REFUSED"));
  rabbit.breakOff();
  await rabbit.clock.advance(1000);
  expect(rabbit.connection.state).toBe("open");
  expect(rabbit.fatal).toEqual([]);

  const refused = new FakeRabbit();
  refused.failures.push(new Error("ACCESS_REFUSED"));
  await expect(refused.connection.start()).rejects.toThrow("ACCESS_REFUSED");
  expect(refused.fatal).toEqual(["RabbitMQ at amqp://a refused this node: ACCESS_REFUSED"]);
  expect(refused.clock.pending).toBe(0);
});

test.each(["connecting", "pausing", "open"])("stopped while %s, it tries no more", async (when) => {
  const rabbit = new FakeRabbit();
  if (when === "pausing") rabbit.failures.push(new Error("down"));
  const started = rabbit.connection.start();
  if (when !== "connecting") await settle();
  await rabbit.connection.stop();
  await started;
  await rabbit.clock.advance(60_000);
  expect(rabbit.connection.state).toBe("stopping");
  expect(rabbit.urls).toHaveLength(1);
  expect(rabbit.closed).toBe(when === "pausing" ? 0 : 1);
  expect(rabbit.clock.pending).toBe(0);

  await rabbit.connection.start();
  expect(rabbit.connection.state).toBe("open");
});

test("a move that makes no sense throws", async () => {
  const rabbit = new FakeRabbit();
  await rabbit.connection.start();
  expect(() => rabbit.connection.start()).toThrow(
    'Expected blocked or lost or stopping to follow "open" for the connection to RabbitMQ but received "connecting"',
  );
});
