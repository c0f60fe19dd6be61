# Your app behind simplebackup on Nomad 1.4 or newer: simplebackup.nomad.hcl.
# config.toml beside this file holds the settings; what stands under "env" wins.
#
#   1. An image that holds your app and simplebackup: its name under "image", the app under "args".
#   2. nomad var put nomad/jobs/app access_key=… secret_key=…
#   3. client { max_kill_timeout = "60s" } in the configuration of the agents
#   4. nomad job run simplebackup.nomad.hcl        in the folder of both files
job "app" {
  type = "service"

  group "app" {
    # One instance writes one database. Two would each back up what the other never saw.
    count = 1

    network {
      port "status" {
        to = 8080
      }
    }

    update {
      # No canary, for the same reason: the old instance leaves its final backup, then the new one
      # restores it.
      canary       = 0
      max_parallel = 1
      # /health/ready has to pass: restore.timeout (60 s) and the app's own start have to fit.
      health_check     = "checks"
      min_healthy_time = "5s"
      healthy_deadline = "3m"
    }

    service {
      name     = "app-status"
      port     = "status"
      provider = "nomad"

      # Alive: also during the restore and the final backup.
      check {
        name     = "alive"
        type     = "http"
        path     = "/health"
        interval = "10s"
        timeout  = "2s"
      }

      # Ready: the database is there and the app was started. 503 until then, and while stopping.
      check {
        name     = "ready"
        type     = "http"
        path     = "/health/ready"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "app" {
      driver = "docker"

      # Nomad sends SIGTERM, then SIGKILL after 5 s unless told otherwise, which would cut the
      # final backup off: the app has 10 s to leave (shutdown.app_timeout), the backup 30 s
      # (shutdown.backup_timeout), and the rest is slack.
      #
      # Clients cap this at their own max_kill_timeout, which is 30 s by default: without step 3 it
      # has no effect.
      kill_timeout = "60s"
      kill_signal  = "SIGTERM"

      config {
        # With a version: of ":latest" nobody knows which one runs, and Nomad pulls it at every start.
        image = "registry.example.com/app:1.0"
        args  = ["run", "--simple-backup", "--", "./server"]
        ports = ["status"]

        # Only the allocation's folder and /tmp are written to, and no right of root is needed.
        # Docker's own seccomp profile holds besides.
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        mount {
          type   = "tmpfs"
          target = "/tmp"
        }
      }

      env {
        SIMPLE_BACKUP_CONFIG       = "/local/config.toml"
        SIMPLE_BACKUP_HTTP_ADDRESS = "0.0.0.0:8080"
        # In the allocation's folder the database outlives a restart of the task, and the restore
        # is skipped. In the container it would go with it, and the newest rows too.
        SIMPLE_BACKUP_DATABASE_PATH = "/alloc/data/database.db"
        MINIO_ENDPOINT              = "s3.amazonaws.com"
        MINIO_BUCKET                = "mybucket"
        MINIO_PREFIX                = "backups"
        MINIO_USE_SSL               = "true"
        MINIO_ACCESS_KEY_FILE       = "/secrets/access_key"
        MINIO_SECRET_KEY_FILE       = "/secrets/secret_key"
      }

      template {
        destination = "local/config.toml"
        data        = file("config.toml")
      }

      # Files rather than variables: "nomad alloc exec … env" and the app's crash reports show
      # variables. 10001 is the user of the image.
      template {
        destination = "secrets/access_key"
        data        = "{{ with nomadVar \"nomad/jobs/app\" }}{{ .access_key }}{{ end }}"
        perms       = "0400"
        uid         = 10001
        gid         = 10001
      }
      template {
        destination = "secrets/secret_key"
        data        = "{{ with nomadVar \"nomad/jobs/app\" }}{{ .secret_key }}{{ end }}"
        perms       = "0400"
        uid         = 10001
        gid         = 10001
      }

      resources {
        cpu = 100
        # simplebackup takes 16 to 24 MB at its peak, whatever the size of the database:
        # scripts/test-docker.sh measures it. The rest is the app's, and the kernel's for files.
        memory = 128
      }
    }
  }
}
