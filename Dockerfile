# The server, ONNX Runtime and the shipped models, on nothing but Debian's C library: no shell, no
# package manager, no root.
#
#   docker build -t onnxd .                                       processor, x86-64 and aarch64
#   docker build -t onnxd:cuda13 --build-arg FLAVOR=cuda13 .      CUDA 13, x86-64
#   docker build --build-arg TRAINING=no .                        compiled once, without a training run:
#                                                                 for emulated processors
#   docker run --rm -p 8001:8001 -p 8000:8000 -p 127.0.0.1:8002:8002 onnxd
#
# Build with `--build-arg RUST_IMAGE=…@sha256:…` to pin the bases by digest.

ARG FLAVOR=cpu
ARG RUST_IMAGE=rust:1.95.0-slim-bookworm
ARG DEBIAN_IMAGE=debian:12.15-slim

# --- what is built and fetched: /out ----------------------------------------------------------------
FROM ${RUST_IMAGE} AS compile
ARG FLAVOR
RUN apt-get update -q \
    && apt-get install -qy --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/*
RUN cargo install --locked --version 5.0.0 cargo-bundle-licenses

# NVIDIA's libraries that ONNX Runtime's CUDA provider loads, under NVIDIA's licence.
RUN mkdir -p /out/onnxruntime /out/licenses \
    && if [ "$FLAVOR" = cuda13 ]; then set -eu; \
        printf '%s\n' \
        'nvidia-cublas==13.10.0.20 --hash=sha256:dcc6d63884c53d07e267ce7e6feac17b2538cebaafec5db865736c3e28e4dc84' \
        'nvidia-cuda-nvrtc==13.5.37 --hash=sha256:86b4d68058807988b7d9af5b44917a0601e9c337f35ccd657bfb3c759ff8d8bc' \
        'nvidia-cuda-runtime==13.5.37 --hash=sha256:df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d' \
        'nvidia-cudnn-cu13==9.28.1.4 --hash=sha256:a54f205b1db1f2895d99f398754db1369816f0569dd459731f925635cf7b65ec' \
        'nvidia-cufft==12.5.0.14 --hash=sha256:b8be26837a5abad2b5b74f3e92dd29f622a42934b355be0961a48712cbba23ad' \
        'nvidia-curand==10.4.5.25 --hash=sha256:22bb226a857e5888fe6b54ae465fc4371296bcff13a35f79e19691bcf454f529' \
        'nvidia-nvjitlink==13.5.37 --hash=sha256:280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb' \
        >/tmp/cuda.txt; \
        python3 -m pip install --quiet --no-cache-dir --no-deps --only-binary=:all: \
            --target /tmp/cuda --require-hashes --requirement /tmp/cuda.txt; \
        find /tmp/cuda -name 'lib*.so.*' -exec mv -t /out/onnxruntime {} +; \
        for licence in /tmp/cuda/*.dist-info/licenses/License.txt; do \
            package=$(basename "${licence%%-*}"); \
            install -Dm644 "$licence" "/out/licenses/nvidia/$package.txt"; \
        done; \
        rm -rf /tmp/cuda /tmp/cuda.txt; \
    fi

WORKDIR /source
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
COPY proto proto
COPY models models
COPY src src
COPY benches/training.py benches/process.py benches/
ARG TRAINING=yes
RUN if [ "$TRAINING" = yes ]; then \
        benches/training.py && cp target/trained/onnxd /out/onnxd; \
    else \
        cargo build --release --locked --bin onnxd && cp target/release/onnxd /out/onnxd; \
    fi
RUN cargo bundle-licenses --format yaml --output /out/licenses/rust-crates.yaml \
        --prefer MIT --prefer Apache-2.0
# Checked against the hashes in the source; python3's pip does the fetching.
RUN /out/onnxd setup --flavor "$FLAVOR" --dir /out/onnxruntime

# --- the whole file system: /image ------------------------------------------------------------------
FROM ${DEBIAN_IMAGE} AS root
RUN set -eu; \
    mkdir -p /image/dev /image/etc /image/proc /image/sys /image/usr/lib /image/usr/lib64 \
        /image/var/lib/dpkg/status.d; \
    mkdir -m 1777 /image/tmp; \
    ln -s usr/lib /image/lib; \
    ln -s usr/lib64 /image/lib64; \
    # The C and C++ libraries with their licences, and what scanners read to know their versions.
    for package in libc6 libgcc-s1 libstdc++6; do \
        dpkg -L "$package" | grep -E '\.so(\.[0-9]+)*$' | grep -v /gconv/ | while read -r file; do \
            cp -a --parents "/usr${file#/usr}" /image; \
        done; \
        dpkg -s "$package" >"/image/var/lib/dpkg/status.d/$package"; \
        install -Dm644 "/usr/share/doc/$package/copyright" "/image/usr/share/doc/$package/copyright"; \
    done; \
    cp -L /etc/os-release /etc/debian_version /image/etc; \
    echo 'hosts: files dns' >/image/etc/nsswitch.conf; \
    echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' >/image/etc/passwd; \
    echo 'nonroot:x:65532:' >/image/etc/group
COPY LICENSE /image/usr/share/licenses/onnxd/LICENSE
COPY --from=compile /out/licenses /image/usr/share/licenses/onnxd
COPY --from=compile /out/onnxruntime /image/usr/local/lib/onnxd
COPY models /image/models
COPY --from=compile /out/onnxd /image/usr/local/bin/onnxd
# Licences of ONNX Runtime lie beside the library, those of the models beside the models. The library
# can be loaded with what is there, or there is no image.
RUN set -eu; cd /image; \
    for kept in usr/local/lib/onnxd/LICENSE usr/local/lib/onnxd/ThirdPartyNotices.txt \
        models/*/LICENSE usr/share/licenses/onnxd/rust-crates.yaml; do \
        test -s "$kept"; \
    done; \
    chmod -R u=rwX,go=rX usr models etc var; \
    library=$(echo usr/local/lib/onnxd/libonnxruntime.so.*); \
    ORT_DISABLE_TELEMETRY=1 LD_LIBRARY_PATH=/usr/local/lib/onnxd \
        chroot /image /usr/local/bin/onnxd doctor --runtime-library "/$library"

# --- the image --------------------------------------------------------------------------------------
FROM scratch AS image-cpu
COPY --from=root /image /
# `serve` listens on loopback unless told otherwise; in a container that is nobody. What others may
# reach in clear text is decided where the ports are published, or by TLS (ONNXD_TLS_CERT, …).
ENV ONNXD_GRPC_ADDR=0.0.0.0:8001 \
    ONNXD_HTTP_ADDR=0.0.0.0:8000 \
    ONNXD_ADMIN_ADDR=0.0.0.0:8002 \
    ONNXD_CLEAR_TEXT=anywhere \
    ORT_DISABLE_TELEMETRY=1 \
    LD_LIBRARY_PATH=/usr/local/lib/onnxd:/usr/local/nvidia/lib64
LABEL org.opencontainers.image.title="onnxd" \
    org.opencontainers.image.description="gRPC inference server for ONNX models" \
    org.opencontainers.image.licenses="Apache-2.0"
EXPOSE 8001 8000 8002
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/usr/local/bin/onnxd", "health"]
ENTRYPOINT ["/usr/local/bin/onnxd"]
CMD ["serve", "/models"]

# The container runtime brings the driver's libraries and devices for these.
FROM image-cpu AS image-cuda13
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM image-${FLAVOR}
