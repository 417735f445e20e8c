import { EnvironmentError, loadEnv, VARIABLES } from "../../../lib/env.ts";

describe("loadEnv", () => {
  test("needs nothing: every variable has a default", () => {
    expect(Object.keys(loadEnv({})).sort()).toEqual(Object.keys(VARIABLES).sort());
  });

  test("reads numbers, lists and addresses", () => {
    const env = loadEnv({ PORT: "0", SERVICES: " gateway, dispatcher,", TRANSPORTER: "amqp://a;amqps://b" });
    expect(env.PORT).toBe(0);
    expect(env.SERVICES).toEqual(["gateway", "dispatcher"]);
    expect(env.TRANSPORTER).toBe("amqp://a;amqps://b");
  });

  test("reads which proxies are trusted, and refuses what is no address", () => {
    expect(loadEnv({ TRUSTED_PROXIES: "10.0.0.0/8, ::1" }).TRUSTED_PROXIES).toEqual(["10.0.0.0/8", "::1"]);
    expect(() => loadEnv({ TRUSTED_PROXIES: "10.0.0.0/8,proxy" })).toThrow('"proxy"');
  });

  test("reads admins and origins", () => {
    const env = loadEnv({
      ADMIN_KEYS: "alice=0123456789abcdef, bob@host=fedcba9876543210",
      MODELS_ORIGIN: "https://a.example/tree, http://127.0.0.1:8080",
      MODELS_ORIGIN_HEADERS: '{"Authorization": "AWS4 x, y=z"}',
    });
    expect(env.ADMIN_KEYS).toEqual([
      { name: "alice", key: "0123456789abcdef" },
      { name: "bob@host", key: "fedcba9876543210" },
    ]);
    expect(env.MODELS_ORIGIN).toEqual(["https://a.example/tree", "http://127.0.0.1:8080"]);
    expect(env.MODELS_ORIGIN_HEADERS).toEqual([["authorization", "AWS4 x, y=z"]]);
  });

  test("reads where models are computed, and repeats no address", () => {
    const url = "http://user:s%40cret@host:8000/v2";
    expect(loadEnv({ REMOTE_ENGINES: `a=${url}, b=https://c` }).REMOTE_ENGINES).toEqual([
      ["a", url],
      ["b", "https://c"],
    ]);
    for (const wrong of ["http://secret", "a=ftp://secret", "a=http://user:se/cret@host", "=http://secret"]) {
      expect(() => loadEnv({ REMOTE_ENGINES: wrong })).toThrow(
        expect.objectContaining({ message: expect.not.stringMatching(/secret|se\/cret/) }),
      );
    }
  });

  test("an empty variable counts as not set", () => {
    expect(loadEnv({ PORT: "" }).PORT).toBe(3000);
  });

  test("reports all mistakes at once, by name and with what was received", () => {
    const load = () => loadEnv({ PORT: "http", MAX_IMAGES: "0", TRANSPORTER: "nats://x", LOG_LEVEL: "loud" });
    expect(load).toThrow(EnvironmentError);
    for (const part of ["4 mistakes", "PORT", '"http"', "MAX_IMAGES", "TRANSPORTER", "LOG_LEVEL"]) {
      expect(load).toThrow(part);
    }
  });

  test("never repeats a wrong address, which may hold a password", () => {
    expect(() => loadEnv({ TRANSPORTER: "http://user:secret@host" })).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining("secret") }),
    );
  });

  test.each([
    { TRANSPORTER: "amqp://user:se/cret@host" },
    { TRANSPORTER: "amqp://user:12#secret@host" },
    { TRANSPORTER: "amqp://user:12?secret@host" },
    { TRANSPORTER: "amqp://user:secret@host:port" },
    { TRANSPORTER: "amqp://user:secret@host:99999" },
    { TRANSPORTER: "amqp://user:secret@[host" },
    { TRANSPORTER: "amqp://ok;user:secret@host" },
    { REDIS_URL: "user:secret@host" },
    { REDIS_URL: "redis://:12/secret@host" },
    { REDIS_URL: "redis://:secret@host:99999" },
    { ADMIN_KEYS: "alice=secret" },
    { ADMIN_KEYS: "a-secret-of-sixteen-characters" },
    { ADMIN_KEYS: "alice=a-secret-with-a space-in-it" },
    { MODELS_ORIGIN: "http://user:secret@host/tree" },
    { MODELS_ORIGIN: "https://host/tree?signature=secret" },
    { MODELS_ORIGIN: "ftp://host/secret" },
    { MODELS_ORIGIN_HEADERS: "authorization: Bearer secret" },
    { MODELS_ORIGIN_HEADERS: '{"authorization": "line\\nsecret"}' },
  ])("%p is malformed, and that is said without its password", (source) => {
    const [variable = ""] = Object.keys(source);
    expect(() => loadEnv(source as Record<string, string>)).toThrow(
      expect.objectContaining({
        message: expect.stringMatching(
          new RegExp(`^(?![^]*secret)[^]*${variable}`.replaceAll("[^]", "[\\s\\S]")),
        ),
      }),
    );
  });

  test.each(["a b", "line\nbreak", "\u001b[31mred", "x".repeat(201)])("%p is no node ID", (id) => {
    expect(() => loadEnv({ NODE_ID: id })).toThrow("NODE_ID");
  });

  test.each(["-1", "1.5", "1e3x", "0x10", "ten", "65536"])("refuses %p as a port", (port) => {
    expect(() => loadEnv({ PORT: port })).toThrow(EnvironmentError);
  });

  test("is frozen", () => {
    expect(Object.isFrozen(loadEnv({}))).toBe(true);
  });

  test("every variable is described", () => {
    for (const [name, spec] of Object.entries(VARIABLES))
      expect([name, Boolean(spec.desc)]).toEqual([name, true]);
  });
});
