FROM node:24-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev

FROM node:24-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=dependencies /app/node_modules node_modules
COPY package.json moleculer.config.ts ./
COPY bin bin
COPY lib lib
COPY middlewares middlewares
COPY mixins mixins
COPY models models
COPY public public
COPY repl repl
COPY services services
COPY strategies strategies
COPY transporters transporters
USER node
EXPOSE 3000
CMD ["node", "bin/start.ts"]
