"""The fixed list of Python packages, pinned: what the corpus is made of, and what must stay out.

Each line: name, version, licence as the package's metadata states it (`build` reads it again and
leaves out what is not permissive). Knows nothing of how packages are fetched.
"""

from __future__ import annotations

from typing import Final

from engine.train.sources import read_list

# Kept for the evaluation: never trained on, and whatever shares lines with them is dropped.
HELD_OUT: Final = read_list("""
attrs 26.1.0 MIT
boltons 26.2.0 BSD License
click 8.5.1 BSD-3-Clause
httpx 0.28.1 BSD License
jinja2 3.1.6 BSD License
more-itertools 11.2.1 MIT
packaging 26.3 Apache-2.0 OR BSD-2-Clause
rich 15.0.0 MIT License
starlette 1.10.0 BSD-3-Clause
tomlkit 0.15.2 MIT
tqdm 4.70.1 MPL-2.0 AND MIT
""")
HELD_OUT_IMPORTS: Final = frozenset(
    [
        "attr",
        "attrs",
        "boltons",
        "click",
        "httpx",
        "jinja2",
        "more_itertools",
        "packaging",
        "rich",
        "starlette",
        "tomlkit",
        "tqdm",
    ]
)

# Widely known ones first, so that a small number of packages is a fair sample.
PACKAGES: Final = read_list("""
django 5.2.19 BSD-3-Clause
sqlalchemy 2.1.9 MIT
requests 2.34.2 Apache Software License
flask 3.1.3 BSD-3-Clause
networkx 3.6.1 BSD-3-Clause
pytest 9.2.0 MIT
sphinx 9.0.4 BSD-2-Clause
aiohttp 3.14.5 Apache-2.0 AND MIT
pydantic 2.14.3 MIT
celery 5.7.0 BSD-3-Clause
twisted 26.10.0 MIT
werkzeug 3.1.9 BSD-3-Clause
black 26.10.1 MIT
scrapy 2.19.0 BSD-3-Clause
nltk 3.10.4 Apache Software License
fastapi 0.165.0 MIT
sympy 1.14.0 BSD License
marshmallow 4.4.0 MIT
jsonschema 4.26.0 MIT
dask 2026.8.0 BSD-3-Clause
accelerate 1.15.0 Apache Software License
aiomysql 0.3.2 MIT
alembic 1.20.1 MIT
altair 6.3.0 BSD License
amqp 5.4.2 BSD License
anndata 0.12.19 BSD-3-Clause
anyio 4.16.0 MIT
apache-beam 2.77.0 Apache Software License
apscheduler 3.11.3 MIT License
arcade 3.3.3 MIT License
ariadne 1.1.1 BSD-3-Clause
arrow 1.4.0 Apache Software License
arviz 0.23.4 Apache Software License
astropy 8.0.2 BSD-3-Clause
asyncpg 0.32.0 Apache-2.0
authlib 1.9.9 BSD License
autopep8 2.3.2 MIT License
azure-core 1.41.0 MIT
azure-identity 1.27.0 MIT
azure-storage-blob 12.31.1 MIT License
babel 2.18.0 BSD License
bandit 1.9.4 Apache-2.0
beartype 0.23.1 MIT
beautifulsoup4 4.15.0 MIT License
behave 1.3.3 BSD-2-Clause
billiard 4.3.2 BSD License
bitstring 5.0.0 MIT License
blacksheep 2.6.4 MIT
bleak 3.1.0 MIT
blessed 1.52.0 MIT
bokeh 3.9.2 BSD-3-Clause
botorch 0.18.1 MIT
bottle 0.13.4 MIT License
cantools 45.1.0 MIT License
cartopy 0.26.0 BSD-3-Clause
cattrs 26.2.1 MIT License
cherrypy 18.10.0 Freely Distributable; BSD License
clickhouse-driver 0.2.11 MIT License
cliff 4.17.0 Apache-2.0
cmd2 4.3.1 MIT
connexion 3.3.0 Apache Software License
construct 2.10.70 MIT License
control 0.10.2 BSD-3-Clause
coverage 7.17.3 Apache-2.0
cvxpy 1.9.3 Apache-2.0
cython 3.3.1 Apache-2.0
dash 4.4.1 MIT License
datasets 5.2.0 Apache Software License
dbt-core 1.12.6 Apache-2.0
diffusers 0.42.1 Apache Software License
dill 0.4.1 BSD License
dipy 1.12.1 BSD License
diskcache 5.6.3 Apache Software License
distributed 2026.8.0 BSD-3-Clause
django-allauth 65.21.1 MIT License
django-cms 5.1.3 BSD License
django-debug-toolbar 8.0.0 BSD License
django-extensions 4.1 MIT
django-oscar 4.2.1 BSD License
djangorestframework 3.18.3 BSD-3-Clause
dnspython 2.9.2 ISC
docker 7.2.0 Apache-2.0
drf-spectacular 0.30.0 BSD-3-Clause
einops 0.8.2 MIT License
equinox 0.13.8 Apache Software License
eventlet 0.41.3 MIT License
expression 5.8.0 MIT
fabric 3.2.3 BSD License
falcon 4.4.0 Apache-2.0
filelock 4.2.12 MIT
fire 0.7.1 Apache-2.0
flake8 7.5.0 MIT
flask-admin 2.2.1 BSD License
flax 0.12.8 Apache Software License
fonttools 4.68.0 MIT
freetype-py 2.5.1 BSD License
geopandas 1.2.0 BSD-3-Clause
gevent 26.9.0 MIT
google-api-core 2.44.0 Apache Software License
google-auth 2.62.2 Apache Software License
gpytorch 1.15.2 MIT
gradio 6.31.0 Apache-2.0
graphene 3.4.3 MIT
graphql-core 3.3.2 MIT
gunicorn 27.0.1 MIT
gymnasium 1.4.0 MIT License
hatchling 1.33.0 MIT
holoviews 1.23.2 BSD-3-Clause
html5lib 1.1 MIT License
huggingface-hub 2.4.0 Apache Software License
hypercorn 0.18.0 MIT License
hyperopt 0.3.0 BSD-3-Clause
ibis-framework 12.0.0 Apache Software License
imageio 2.38.1 BSD-2-Clause
in-toto 3.1.0 Apache-2.0
invoke 3.0.3 BSD-2-Clause
ipykernel 7.4.0 BSD-3-Clause
ipython 9.18.1 BSD-3-Clause
ipywidgets 8.1.9 BSD License
isort 9.0.2 MIT
jax 0.10.2 Apache-2.0
jedi 0.20.1 MIT License
joblib 1.6.0 BSD-3-Clause
jupyter-client 8.10.0 BSD License
jupyter-server 2.21.1 BSD License
jupyterlab 4.6.6 BSD License
kedro 1.7.0 Apache Software License (Apache 2.0)
keras 3.15.1 Apache License 2.0
kivy 2.3.1 MIT License
kombu 5.7.0 BSD-3-Clause
langchain 1.5.0 MIT License
langchain-core 1.8.2 MIT License
lark 1.3.1 MIT License
libcst 1.9.0 MIT License
librosa 0.11.0 ISC License (ISCL)
lightgbm 4.7.0 MIT
line-profiler 5.1.0 BSD-3-Clause
litestar 2.25.0 MIT License
llama-index-core 0.14.25 MIT
locust 2.47.0 MIT License
loguru 0.7.3 MIT License
luigi 3.8.1 Apache Software License
lxml 6.1.3 BSD-3-Clause
markdown 3.11.3 BSD-3-Clause
markdown-it-py 4.3.0 MIT License
matplotlib 3.11.2 Python Software Foundation License
mdit-py-plugins 0.7.0 MIT License
mechanize 0.4.10 BSD License
mesa 3.3.1 Apache Software License
metpy 1.7.1 BSD License
mimesis 22.2.0 MIT
mistune 3.4.0 BSD License
mkdocs 1.6.1 BSD-2-Clause
mne 1.13.2 BSD-3-Clause
mongoengine 0.29.3 MIT License
moto 5.2.5 Apache-2.0
motor 3.7.1 Apache Software License
moviepy 2.2.1 MIT License
mpmath 1.4.1 BSD-3-Clause
mypy 2.4.1 MIT
nbconvert 7.17.2 BSD License
nbformat 5.11.1 BSD License
nibabel 5.4.2 MIT
nilearn 0.14.1 BSD-3-Clause
nipype 1.11.0 Apache-2.0
nose2 0.16.0 BSD License
nox 2026.10.20 Apache-2.0
numba 0.68.1 BSD License
numpy 2.4.6 BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0
oauthlib 4.0.1 BSD-3-Clause
openpyxl 3.1.5 MIT License
opentelemetry-api 1.45.2 Apache-2.0
opentelemetry-sdk 1.45.2 Apache-2.0
optax 0.2.8 Apache Software License
optuna 5.0.0 MIT License
ormar 0.26.0 MIT License
pandas 3.1.1 BSD-3-Clause
panel 1.9.4 BSD License
param 2.4.2 BSD License
parso 0.8.7 MIT License
passlib 1.7.4 BSD
patsy 1.0.3 BSD License
pdfminer-six 20260107 MIT
peft 0.21.2 Apache Software License
pendulum 3.3.0 MIT License
pettingzoo 1.27.0 MIT License
pexpect 4.9.0 ISC License (ISCL)
pint 0.25.3 BSD License
pip-tools 7.6.2 BSD-3-Clause
platformdirs 4.14.7 MIT
plumbum 2.0.2 MIT
ply 3.11 BSD
pony 0.7.20 Apache-2.0
pre-commit 4.7.0 MIT
prometheus-client 0.26.0 Apache-2.0 AND BSD-2-Clause
prompt-toolkit 3.0.53 BSD License
psutil 7.2.2 BSD-3-Clause
pudb 2026.1 MIT
pulp 3.3.2 MIT
pwntools 4.15.0 MIT License
pyarrow 26.0.1 Apache-2.0
pydicom 3.0.2 MIT License
pyflakes 4.1.0 MIT License
pygments 2.21.0 BSD-2-Clause
pyinstrument 5.1.3 BSD License
pymc 5.28.5 Apache Software License
pymodbus 3.16.1 BSD License
pymongo 4.20.0 Apache-2.0
pymysql 1.2.4 MIT
pyopenssl 26.4.0 Apache Software License
pyparsing 3.3.3 MIT
pypdf 7.1.0 BSD-3-Clause
pyperf 2.10.0 MIT License
pyproj 3.7.2 MIT
pyqtgraph 0.14.0 MIT
pyramid 2.1 LicenseRef-Repoze-BSD-derived
pyro-ppl 1.9.2 Apache-2.0
pyrsistent 0.20.0 MIT License
pyserial 3.5 BSD License
pytest-xdist 3.8.0 MIT
python-dateutil 4.0.0 BSD-3-Clause
python-docx 1.2.0 MIT License
python-lsp-server 1.15.0 MIT
python-pptx 1.0.2 MIT License
pyvisa 1.16.2 MIT License
pyvista 0.49.1 MIT
pyyaml 6.0.3 MIT License
quart 0.22.0 MIT
qutip 5.3.1 BSD-3-Clause
rdflib 7.6.0 BSD License
redis 8.1.0 MIT
reportlab 5.1.0 BSD License
returns 0.30.0 BSD License
robotframework 7.5 Apache Software License
rq 3.0.0 BSD-2-Clause
ruamel-yaml 0.19.1 MIT License
s3transfer 0.19.3 Apache Software License
sanic 25.12.1 MIT License
scalene 2.4.0 Apache Software License
scanpy 1.11.5 BSD-3-Clause
scikit-image 0.26.0 BSD License
scikit-learn 1.9.1 BSD-3-Clause
scipy 1.17.1 BSD License
seaborn 0.13.2 BSD License
securesystemslib 1.6.0 MIT
sentence-transformers 6.2.0 Apache-2.0
sentry-sdk 2.75.0 MIT
shapely 2.2.0 BSD-3-Clause
sigstore 4.5.1 Apache-2.0
simplejson 4.3.0 MIT OR AFL-2.1
slack-bolt 1.30.0 MIT License
slack-sdk 3.47.0 MIT License
soupsieve 4.1.2 MIT
spacy 3.8.18 MIT License
sqlfluff 4.5.0 MIT License
sqlglot 30.30.0 MIT
sqlparse 0.6.1 BSD License
stable-baselines3 2.9.2 MIT
statsmodels 0.15.0 BSD-3-Clause
strawberry-graphql 0.341.2 MIT
streamlit 1.67.0 Apache-2.0
structlog 26.1.0 MIT OR Apache-2.0
sunpy 7.0.5 BSD-3-Clause
supervisor 4.3.0 BSD-derived (http://www.repoze.org/LICENSE.txt)
tensorboard 2.21.0 Apache Software License
tensorflow-datasets 4.9.10 Apache Software License
testtools 2.9.1 MIT License
textblob 0.20.1 MIT
thinc 9.1.1 MIT License
timm 1.0.31 Apache Software License
toolz 1.2.0 BSD-3-Clause
torchmetrics 1.9.0 Apache Software License
tornado 6.6.1 Apache Software License
tortoise-orm 1.1.9 Apache Software License
tox 4.67.15 MIT
traitlets 5.16.1 BSD License
transformers 5.23.0 Apache 2.0 License
treq 26.7.0 MIT
trimesh 5.2.0 MIT License
trio 0.35.0 MIT OR Apache-2.0
tuf 7.0.1 Apache-2.0 OR MIT
tweepy 4.17.0 MIT License
ufolib2 0.19.1 Apache-2.0
uncertainties 3.2.3 BSD License
urllib3 2.8.0 MIT
uvicorn 0.54.0 BSD-3-Clause
vcrpy 9.4.2 MIT License
virtualenv 21.15.8 MIT
vispy 0.17.0 BSD-3-Clause
viztracer 1.1.1 Apache-2.0
wagtail 8.0.1 BSD-3-Clause
wandb 0.31.0 MIT License
watchdog 7.1.0 Apache-2.0
webob 1.8.11 MIT License
wrapt 2.5.2 BSD-2-Clause
wtforms 3.3.2 BSD License
xarray 2026.9.0 Apache-2.0
xgboost 3.2.0 Apache Software License
xlrd 2.0.2 BSD License
xlsxwriter 3.3.1 BSD-2-Clause
xmlschema 4.3.2 MIT
yapf 0.43.0 Apache Software License
yt 4.4.3 BSD-3-Clause
zeep 4.3.3 MIT License
zodb 6.4 ZPL-2.1
zope-interface 8.7 ZPL-2.1
zulip 0.9.1 Apache Software License
""")
