# The tap alone, as a command that reads its settings from the environment or a mounted file:
#   docker build -t tap-balance .
#   docker run --rm --read-only --env TAP_BALANCE_DEV_KEY --env TAP_BALANCE_DEV_SECRET tap-balance --config=ENV
# docs/container.md says more, and what could not be tested.
FROM python:3.13-slim-bookworm AS build
WORKDIR /source
# The dependencies first: this layer is built again only if a pin changes. pip checks every hash, and
# compiles bytecode, which a container would otherwise do without at every start.
COPY requirements/build.txt requirements/tap.txt requirements/
RUN python -m venv --without-pip /opt/tap-balance \
 && pip --python /opt/tap-balance install --no-cache-dir --require-hashes -r requirements/tap.txt \
 && pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY tap_balance tap_balance
RUN python -m hatchling build --target wheel \
 && pip --python /opt/tap-balance install --no-cache-dir --no-deps dist/*.whl

FROM python:3.13-slim-bookworm
COPY --from=build /opt/tap-balance /opt/tap-balance
ENV PATH=/opt/tap-balance/bin:$PATH
# A number, so that Kubernetes can tell that it is not root (runAsNonRoot).
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["tap-balance"]
