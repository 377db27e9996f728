#!/bin/sh
# Fetch GraphiQL and React from the npm registry into graphiql/vendor/ and rewrite SHA256SUMS.
# The same versions produce the same bytes, so `git diff` is empty unless a version changes.
set -eu

graphiql=4.1.2
react=18.3.1
built_by=2026-03-11 # the day after GraphiQL's release: newer packages are not in its bundle

here=$(cd "$(dirname "$0")" && pwd)
vendor=$here/graphiql/vendor
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# npm verifies each archive against the registry's hash.
npm install --prefix "$work" --before "$built_by" --ignore-scripts --no-audit --no-fund --no-package-lock --silent \
    "graphiql@$graphiql" "react@$react" "react-dom@$react" graphql graphql-ws@5 \
    @fontsource/roboto @fontsource/fira-code

cd "$work/node_modules"
# Removes the reference to the source map (4.7 MB), since Django's manifest storage would require the file.
sed '/^\/\/# sourceMappingURL=/d' graphiql/graphiql.min.js >"$vendor/graphiql.min.js"
cp graphiql/graphiql.min.css react/umd/react.production.min.js react-dom/umd/react-dom.production.min.js "$vendor/"
for package in graphiql react react-dom; do
    cp "$package/LICENSE" "$vendor/$package.LICENSE"
done
node "$here/bundled-licenses.mjs" . >"$vendor/graphiql.bundled.LICENSE"

cd "$vendor"
sha256sum -- *.js *.css *.LICENSE >SHA256SUMS
