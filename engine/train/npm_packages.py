"""The fixed list of npm packages, pinned: JavaScript and TypeScript that somebody wrote.

Only packages whose tarballs hold sources, not bundles alone. Each line: name, version, licence as
`package.json` states it (`build` reads it again and leaves out what is not permissive). Knows
nothing of how packages are fetched.
"""

from __future__ import annotations

from typing import Final

from engine.train.sources import read_list

# Kept for the evaluation: never trained on, and whatever shares lines with them is dropped.
NPM_HELD_OUT: Final = read_list(
    """
commander 15.1.0 MIT
express 5.3.0 MIT
lodash 4.18.1 MIT
""",
    "npm",
)

# Widely known ones first, so that a small number of packages is a fair sample.
NPM_PACKAGES: Final = read_list(
    """
koa 3.2.1 MIT
webpack 5.112.2 MIT
rxjs 7.8.2 Apache-2.0
eslint 10.15.0 MIT
three 0.187.0 MIT
svelte 5.57.3 MIT
fastify 5.12.8 MIT
axios 1.21.1 MIT
jquery 4.0.0 MIT
moment 2.31.0 MIT
ramda 0.32.0 MIT
mongoose 9.12.1 MIT
undici 8.12.4 MIT
mocha 12.0.3 MIT
redux 5.0.1 MIT
vue 2.7.16 MIT
@hapi/hapi 21.4.10 BSD-3-Clause
joi 18.3.2 BSD-3-Clause
chai 5.1.2 MIT
enhanced-resolve 5.27.0 MIT
d3-array 3.2.4 ISC
d3-shape 3.2.0 ISC
d3-geo 3.1.1 ISC
@sveltejs/kit 3.2.0 MIT
preact 11.2.0 MIT
mithril 2.3.8 MIT
bootstrap 5.3.8 MIT
ws 8.23.0 MIT
winston 3.19.0 MIT
pino 10.4.0 MIT
knex 3.3.0 MIT
objection 3.1.5 MIT
bookshelf 1.2.0 MIT
mongodb 7.8.0 Apache-2.0
bson 7.3.4 Apache-2.0
luxon 3.7.2 MIT
date-fns 4.4.0 MIT
nodemailer 6.9.16 MIT-0
markdown-it 14.1.0 MIT
cheerio 1.2.0 MIT
jsdom 31.0.1 MIT
handlebars 4.7.10 MIT
less 4.9.1 Apache-2.0
postcss 8.5.33 MIT
autoprefixer 10.6.2 MIT
terser 5.51.2 BSD-2-Clause
eslint-plugin-unicorn 80.0.0 MIT
eslint-plugin-vue 9.33.0 MIT
eslint-plugin-react 7.37.5 MIT
eslint-plugin-n 18.5.0 MIT
eslint-plugin-jsdoc 65.4.3 BSD-3-Clause
stylelint 18.0.0 MIT
svgo 4.1.0 MIT
css-tree 3.2.1 MIT
execa 10.2.1 MIT
karma 6.4.4 MIT
ava 8.1.2 MIT
sinon 17.0.1 BSD-3-Clause
nock 13.5.6 MIT
lighthouse 13.5.0 Apache-2.0
leaflet 1.9.4 BSD-2-Clause
ol 10.10.0 BSD-2-Clause
maplibre-gl 6.17.0 BSD-3-Clause
@deck.gl/core 9.4.0 MIT
@luma.gl/core 9.4.2 MIT
@cesium/engine 26.3.0 Apache-2.0
phaser 4.2.1 MIT
plotly.js 4.1.1 MIT
matter-js 0.20.0 MIT
hls.js 1.7.4 Apache-2.0
vega-lite 6.5.0 BSD-3-Clause
codemirror 5.65.20 MIT
prosemirror-view 1.42.9 MIT
prosemirror-model 1.25.13 MIT
@tiptap/core 3.34.0 MIT
@reduxjs/toolkit 2.14.0 MIT
mobx 7.1.3 MIT
zod 4.6.7 MIT
@trpc/server 11.25.2 MIT
@tanstack/query-core 5.108.0 MIT
@tanstack/table-core 8.20.5 MIT
@tanstack/router-core 1.171.39 MIT
effect 4.1.0 MIT
ethers 6.17.0 MIT
viem 2.57.20 MIT
puppeteer-core 25.16.0 Apache-2.0
@react-navigation/core 7.23.0 MIT
react-native-paper 5.15.3 MIT
react-native-reanimated 4.7.1 MIT
quasar 2.34.0 MIT
bootstrap-vue 2.23.1 MIT
mysql2 3.24.5 MIT
cassandra-driver 4.10.0 Apache-2.0
kafkajs 2.2.4 MIT
amqplib 2.3.1 MIT
@grpc/grpc-js 1.14.7 Apache-2.0
protobufjs 8.8.1 BSD-3-Clause
moleculer 0.15.2 MIT
@loopback/rest 15.0.16 MIT
@loopback/repository 8.0.15 MIT
@loopback/context 8.0.15 MIT
botbuilder-core 4.23.3 MIT
discord.js 14.28.1 Apache-2.0
telegraf 4.16.3 MIT
compromise 14.17.0 MIT
pdf-lib 1.17.1 MIT
pdfmake 0.3.11 MIT
opentype.js 1.3.4 MIT
@huggingface/transformers 4.3.1 Apache-2.0
exceljs 4.4.0 MIT
@npmcli/arborist 10.0.4 ISC
hardhat 3.18.0 MIT
@blueprintjs/core 6.20.0 Apache-2.0
libp2p 3.3.11 Apache-2.0 OR MIT
@noble/curves 2.4.0 MIT
serverless 3.40.0 MIT
abcjs 6.7.2 MIT
sails 1.5.18 MIT
chrome-devtools-frontend 1.0.1705227 BSD-3-Clause
""",
    "npm",
)
