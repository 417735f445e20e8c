# The server with its models, for every role: SERVICES says which. `docker build -t dl-lambda .`
# A base of your own needs Node 24 and npm: --build-arg BASE=registry.example/node:24.
ARG BASE=node:24-slim

FROM ${BASE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
COPY scripts/no-download scripts/no-download
# --build-arg TFJS_NODE=1: TensorFlow itself beside its WebAssembly (another gigabyte), which SavedModels need.
ARG TFJS_NODE=0
COPY scripts/tfjs-node.sh scripts/venv.sh scripts/
COPY testkit/python testkit/python
# ONNX Runtime brings its libraries for every platform: only this one's are kept, and nothing for GPUs.
RUN npm ci --omit=dev --no-audit --no-fund \
 && cd node_modules/onnxruntime-node/bin \
 && find . -mindepth 3 -maxdepth 3 -type d -not -path "*/linux/$(node -p process.arch)" -exec rm -r {} + \
 && find . -name "*providers*" -delete \
 && cd ../../@tensorflow \
 && find . -type f ! -name package.json ! -name "*.node.js" ! -name "*.wasm" ! -name "*threaded-simd*.js" -delete
RUN mkdir .tfjs-node && if [ "$TFJS_NODE" = 1 ]; then \
      { ! command -v apt-get || { apt-get update -q && apt-get install -qy --no-install-recommends g++ python3-venv; }; } \
      && XDG_CACHE_HOME=/tmp scripts/tfjs-node.sh && rm -rf .tfjs-node/node_modules/@tensorflow/*/dist/*.map; \
    fi

FROM ${BASE}
# For services that take clips (mixins/video.mixin.ts): --build-arg FFMPEG=1 adds Debian's.
ARG FFMPEG=
RUN if [ -n "$FFMPEG" ]; then \
      apt-get update && apt-get install --yes --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*; \
    fi
# What changes least comes first: a changed service file is a push of a few kilobytes.
WORKDIR /app
COPY --from=dependencies /app/node_modules node_modules
COPY --from=dependencies /app/.tfjs-node .tfjs-node
COPY models models
COPY package.json moleculer.config.ts ./
COPY transporters transporters
COPY strategies strategies
COPY middlewares middlewares
COPY repl repl
COPY public public
COPY lib lib
COPY bin bin
COPY mixins mixins
COPY services/gateway.service.ts services/dispatcher.service.ts services/
# Nothing is written: the root may be read-only. Port 9100 has health and metrics of every role.
ENV NODE_ENV=production ADMIN_PORT=9100
# What Node compiles at a start is compiled here, by the user who starts it: a start from the image takes half the time.
RUN mkdir node_modules/.cache && chown 1000:1000 node_modules/.cache
USER 1000:1000
RUN ["node", "bin/warm.ts"]
COPY services services
EXPOSE 3000 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["node", "bin/healthcheck.ts"]
CMD ["node", "bin/start.ts"]
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dl-lambda" \
      org.opencontainers.image.description="Inference as a service: models behind one HTTP door" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
