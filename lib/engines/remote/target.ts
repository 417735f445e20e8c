import { env } from "../../env.ts";
import { StartError } from "../../start-error.ts";
import type { Remote } from "./part.ts";

/** A server as it is asked. */
export interface Target extends Omit<Remote, "url"> {
  readonly origin: string;
  /** In front of every path, "" or `/prefix`. */
  readonly prefix: string;
  /** Value of the header; it holds the password, and is in no message. */
  readonly authorization?: string;
}

/**
 * @param name of the model here
 * @throws StartError if nobody says where the server is
 */
export function targetOf(name: string, { url, ...part }: Remote): Target {
  const found = env.REMOTE_ENGINES.find(([model]) => model === name)?.[1] ?? url;
  if (!found) {
    throw new StartError(
      `No address of the server that computes ${name}: remote.url in its manifest, or REMOTE_ENGINES=${name}=http://…`,
    );
  }
  const { origin, pathname, username, password } = new URL(found);
  const user = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return {
    ...part,
    origin,
    prefix: pathname.replace(/\/+$/, ""),
    ...(username || password ? { authorization: `Basic ${Buffer.from(user).toString("base64")}` } : {}),
  };
}
