import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer, type TLSSocket } from "node:tls";
import { installed } from "./debian.ts";

export interface TlsProxy {
  readonly port: number;
  /** Path of the certificate that signs the proxy's: its own. */
  readonly ca: string;
  /** Connections that were made over TLS. */
  accepted(): number;
  close(): Promise<void>;
}

/** TLS in front of a plain server, as load balancers do it, with a certificate for `localhost` made for the occasion. */
export async function tlsProxy(target: { readonly host: string; readonly port: number }): Promise<TlsProxy> {
  const openssl = await installed(["/usr/bin/openssl", "/usr/local/bin/openssl"], "openssl");
  if (!openssl) throw new Error("OpenSSL is not installed");
  const folder = mkdtempSync(join(tmpdir(), "tls-"));
  const [key, ca] = [join(folder, "key.pem"), join(folder, "cert.pem")];
  const request =
    "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost";
  execFileSync(openssl, [...request.split(" "), "-keyout", key, "-out", ca], { stdio: "ignore" });

  let accepted = 0;
  const sockets = new Set<TLSSocket>();
  const server = createServer({ key: readFileSync(key), cert: readFileSync(ca) }, (socket) => {
    accepted++;
    sockets.add(socket);
    const plain = connect(target);
    const end = () => {
      plain.destroy();
      socket.destroy();
      sockets.delete(socket);
    };
    for (const each of [plain, socket]) each.on("error", end).on("close", end);
    socket.pipe(plain).pipe(socket);
  });
  server.on("tlsClientError", () => {});
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    ca,
    accepted: () => accepted,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((done) => server.close(done));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
