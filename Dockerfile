# The server with its models, for every role: SERVICES says which. `docker build -t dl-lambda .`
# A base of your own needs Node 24 and npm: --build-arg BASE=registry.example/node:24.
ARG BASE=node:24-slim

FROM ${BASE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
COPY scripts/no-download scripts/no-download
# ONNX Runtime brings its libraries for every platform: only this one's are kept, and nothing for GPUs.
RUN npm ci --omit=dev --no-audit --no-fund \
 && cd node_modules/onnxruntime-node/bin \
 && find . -mindepth 3 -maxdepth 3 -type d -not -path "*/linux/$(node -p process.arch)" -exec rm -r {} + \
 && find . -name "*providers*" -delete

FROM ${BASE}
# What changes least comes first: a changed service file is a push of a few kilobytes.
WORKDIR /app
COPY --from=dependencies /app/node_modules node_modules
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
COPY services services
# Nothing is written: the root may be read-only. Port 9100 has health and metrics of every role.
ENV NODE_ENV=production ADMIN_PORT=9100
USER 1000:1000
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
