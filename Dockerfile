# The command line as an image:
#   docker build -t millrace .
#   docker run --rm -e REDIS_URL -v "$PWD/handlers.ts:/app/handlers.ts:ro" millrace worker handlers.ts --stream orders
# Handlers with dependencies: FROM millrace, and COPY them with their node_modules to /app.

FROM node:22-alpine AS build
WORKDIR /opt/millrace
COPY package.json package-lock.json .npmrc ./
# Without scripts: one of them would build what is not copied yet, and no other is needed.
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src src
COPY cli cli
RUN npm run build -- --declaration false --sourceMap false && rm dist/.tsbuildinfo

FROM node:22-alpine AS dependencies
WORKDIR /opt/millrace
COPY package.json package-lock.json .npmrc ./
# Not --omit=dev: ioredis is a peer dependency, but as the tests need it too, that would leave it out. The versions are
# those of the lock file all the same.
RUN npm pkg delete devDependencies && npm ci --ignore-scripts --no-audit --no-fund

FROM node:22-alpine
ENV NODE_ENV=production
COPY --from=dependencies /opt/millrace/package.json /opt/millrace/
COPY --from=dependencies /opt/millrace/node_modules /opt/millrace/node_modules
COPY --from=build /opt/millrace/dist /opt/millrace/dist
# JavaScript handlers find `millrace` as Node looks for it; those in TypeScript are given it.
RUN mkdir /node_modules && ln -s /opt/millrace /node_modules/millrace
WORKDIR /app
# `node`, as a number: that it is not root can be checked without looking into the image.
USER 1000:1000
# Node itself is the process that gets the signals, and SIGTERM drains.
ENTRYPOINT ["node", "/opt/millrace/dist/cli/main.js"]
CMD ["--help"]
