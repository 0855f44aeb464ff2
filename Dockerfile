# The server of a saved model:
#   docker build -t mender .
#   docker run -p 8000:8000 -e MENDER_TOKEN -v $PWD/outputs/quickstart/model:/model:ro mender
FROM python:3.11-slim

WORKDIR /mender
COPY . .
# Options of pip, such as the index of torch's wheels for a CPU alone, which are much smaller:
#   docker build --build-arg PIP_OPTIONS="--extra-index-url ..." .
ARG PIP_OPTIONS=""
RUN pip install --no-cache-dir $PIP_OPTIONS --constraint constraints.txt ".[serve,offline]" \
    && useradd --create-home --uid 1000 mender
USER mender
ENV HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
EXPOSE 8000
# A shell would keep SIGTERM to itself.
ENTRYPOINT ["mender", "serve"]
CMD ["/model", "--host", "0.0.0.0"]
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')"]
