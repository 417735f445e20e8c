import { enableCompileCache } from "node:module";
import { resolve } from "node:path";

// What Node strips of types and compiles is kept for the next start, and for the processes of engines and decoders: half
// the time to start, and 20 MB less for each, as none has to load the compiler. Where nothing can be written, without.
enableCompileCache(resolve(import.meta.dirname, "../node_modules/.cache/node"));
