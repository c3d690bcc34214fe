# A served model: docker build -t perdure . && docker run -p 8000:8000 -v ./pets:/model -e PERDURE_TOKEN=… perdure
# Weights of the backbone are fetched on the first start, into the volume /cache. An index of smaller,
# CPU-only wheels of torch is named by --build-arg PIP_EXTRA_INDEX_URL=…
FROM python:3.12-slim

ARG PIP_EXTRA_INDEX_URL
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PERDURE_HOME=/cache

RUN useradd --create-home --uid 10001 perdure \
    && install -d -o perdure -g perdure /model /cache

COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN pip install "/src[serve]" && rm -rf /src

USER 10001:10001
VOLUME ["/model", "/cache"]
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz')"]
ENTRYPOINT ["perdure", "serve", "/model", "--host", "0.0.0.0", "--port", "8000"]
