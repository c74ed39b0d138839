resource "aws_lb" "this" {
  count = local.own_load_balancer ? 1 : 0

  #checkov:skip=CKV_AWS_91:access_logs_bucket is the caller's choice; the API writes a line for each request itself
  #checkov:skip=CKV_AWS_150:deletion_protection is on by default and the caller's choice
  #checkov:skip=CKV2_AWS_76:the web ACL of waf.tf has AWSManagedRulesKnownBadInputsRuleSet; checkov does not follow its count
  #checkov:skip=CKV2_AWS_28:the web ACL is associated in waf.tf, unless the caller switches it off
  name               = var.name
  load_balancer_type = "application"
  internal           = var.internal
  security_groups    = [aws_security_group.load_balancer[0].id]
  subnets            = var.load_balancer_subnet_ids
  # Longer than the longest wait of a call (50 s), shorter than the API's keep-alive (90 s): the load balancer closes
  # first, and never sends a request into a connection that the API is closing.
  idle_timeout               = 60
  drop_invalid_header_fields = true
  enable_deletion_protection = var.deletion_protection
  tags                       = local.tags

  dynamic "access_logs" {
    for_each = var.access_logs_bucket[*]
    content {
      bucket  = access_logs.value
      prefix  = var.name
      enabled = true
    }
  }
}

resource "aws_lb_target_group" "api" {
  #checkov:skip=CKV_AWS_378:TLS ends at the load balancer; behind it only the security group of the load balancer reaches the API
  name        = "${var.name}-api"
  port        = local.ports.api
  protocol    = "HTTP"
  target_type = "ip"
  vpc_id      = var.vpc_id
  # Requests that wait in a draining API are answered before it goes.
  deregistration_delay          = local.lame_duck_s + var.drain_s
  load_balancing_algorithm_type = "least_outstanding_requests"
  tags                          = local.tags

  # ECS replaces what fails this: first it starts another task, then it stops the old one, which drains. So no request goes to a task
  # that is not ready: one that starts (a deployment that never becomes ready is rolled back), or one that is cut off from AWS. In an
  # outage of AWS all of them are replaced in turns; nothing is lost by it, and no check could tell the two apart.
  health_check {
    path                = "/readyz"
    matcher             = "200"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

# Admin routes, docs and metrics, for operators only.
resource "aws_lb_target_group" "admin" {
  #checkov:skip=CKV_AWS_378:TLS ends at the load balancer; behind it only the security group of the load balancer reaches the API
  count = local.admin_listener ? 1 : 0

  name                 = "${var.name}-admin"
  port                 = local.ports.admin
  protocol             = "HTTP"
  target_type          = "ip"
  vpc_id               = var.vpc_id
  deregistration_delay = local.lame_duck_s + var.drain_s
  tags                 = local.tags

  health_check {
    path                = "/readyz"
    matcher             = "200"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "admin" {
  count = local.admin_listener && local.own_load_balancer ? 1 : 0

  load_balancer_arn = aws_lb.this[0].arn
  port              = 8443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn
  tags              = local.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.admin[0].arn
  }
}

resource "aws_lb_listener" "https" {
  count = local.own_load_balancer ? 1 : 0

  load_balancer_arn = aws_lb.this[0].arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn
  tags              = local.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.api.arn
  }
}

# Metrics are for those inside.
resource "aws_lb_listener_rule" "no_metrics" {
  count = local.own_load_balancer ? 1 : 0

  listener_arn = aws_lb_listener.https[0].arn
  priority     = 1
  tags         = local.tags

  action {
    type = "fixed-response"
    fixed_response {
      content_type = "text/plain"
      message_body = "Not found"
      status_code  = "404"
    }
  }

  condition {
    path_pattern {
      values = ["/metrics", "/metrics/*"]
    }
  }
}

resource "aws_lb_listener" "http" {
  count = local.own_load_balancer ? 1 : 0

  load_balancer_arn = aws_lb.this[0].arn
  port              = 80
  protocol          = "HTTP"
  tags              = local.tags

  default_action {
    type = "redirect"
    redirect {
      port        = "443"
      protocol    = "HTTPS"
      status_code = "HTTP_301"
    }
  }
}

# On a listener that others use as well: our host names, and of them everything but the metrics.
resource "aws_lb_listener_rule" "api" {
  count = local.own_load_balancer ? 0 : 1

  listener_arn = var.load_balancer.listener_arn
  priority     = var.load_balancer.priority + 1
  tags         = local.tags

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.api.arn
  }

  condition {
    host_header {
      values = var.load_balancer.hosts
    }
  }
}

# Who may reach that listener is its owner's to say.
resource "aws_lb_listener_rule" "admin" {
  count = local.admin_listener && !local.own_load_balancer ? 1 : 0

  listener_arn = var.load_balancer.admin.listener_arn
  priority     = var.load_balancer.priority
  tags         = local.tags

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.admin[0].arn
  }

  condition {
    host_header {
      values = var.load_balancer.hosts
    }
  }
}

resource "aws_lb_listener_rule" "no_metrics_shared" {
  count = local.own_load_balancer ? 0 : 1

  listener_arn = var.load_balancer.listener_arn
  priority     = var.load_balancer.priority
  tags         = local.tags

  action {
    type = "fixed-response"
    fixed_response {
      content_type = "text/plain"
      message_body = "Not found"
      status_code  = "404"
    }
  }

  condition {
    host_header {
      values = var.load_balancer.hosts
    }
  }

  condition {
    path_pattern {
      values = ["/metrics", "/metrics/*"]
    }
  }
}
